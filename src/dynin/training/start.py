"""What a run starts from: new weights in the embedded layout, or a model of any layout, its tables grown where asked.

Enters: a `TrainConfig`. Leaves: a model's side of the data (`RowEncoder`: task table, vocabulary, tokenizers), and the
network at its first step. Does not know losses, rows or how a state is laid out.

    init                    vocabulary, task table     tokenizers                          weights
    none                    embedded                   the codecs, or those of a model     drawn
    a model                 that model's               that model's                        that model's
    with layout published   Dynin-Omni's               those that this layout has          grown by rows for speech
"""

import itertools
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dynin import checkpoint
from dynin.config import suggest
from dynin.data.emoji_world.clip import FRAME_RATE_HZ, NUM_FRAMES
from dynin.data.emoji_world.world import EmojiWorld
from dynin.data.records.encoder import RowEncoder
from dynin.errors import ConfigError, VocabularyError
from dynin.media.files import replace_whole
from dynin.model.config import EMBEDDED as EMBEDDED_MODEL
from dynin.model.family import FAMILIES, first_code
from dynin.model.remap import row_order
from dynin.model.transformer import Transformer, initialise
from dynin.pipeline import encoding
from dynin.pipeline.description import ModelFile, is_description
from dynin.pipeline.description import read as read_description
from dynin.pipeline.folder import load
from dynin.pipeline.parts import MediaSources, with_media
from dynin.sequence.task import TABLES, Task
from dynin.tokenizers.bundle import Tokenizers
from dynin.tokenizers.small.image import SmallImageTokenizer
from dynin.tokenizers.text import ByteLevelText
from dynin.tokenizers.video import VideoTokenizer
from dynin.training import adapters
from dynin.training.codec_speech import read_speech_codec
from dynin.training.config import NewRows, TrainConfig
from dynin.types import Modality
from dynin.vocabulary import EMBEDDED, Vocabulary

log = logging.getLogger(__name__)
CORPUS_EXAMPLES = 3000
"""Examples of each task whose text the text tokenizer learns its merges from."""
TEXT_TASKS = ("t2t", "i2t", "v2t", "t2i", "i2i", "t2v", "i2v", "v2v", "v2i", "s2t")
GIVEN_PX = "given_px"
"""Among the lengths of a task: the side of the square that its given pictures and frames are cut to."""
NEARNESS, PLAIN_STD = 1e-9, 0.02
"""What the covariance of the old rows is multiplied by; spread of plain new rows."""


# ---- data -----------------------------------------------------------------------------------------------------------


def side_of(config: TrainConfig, device: torch.device) -> RowEncoder:
    """A run's side of the data: what turns values into rows of its vocabulary.

    Args:
        device: Where published tokenizers of media compute; they are read when first used. Where rows are made in
            processes of their own, those compute on the CPU.

    Raises:
        CheckpointError: If a tokenizer is missing or damaged.
        ConfigError: If settings contradict each other or the model.
    """
    if not config.init:
        tokenizers, vocabulary, max_len = tokenizers_of(config), EMBEDDED, EMBEDDED_MODEL.max_len
    else:
        if config.tokenizers and config.tokenizers != config.init:
            log.warning("setting 'tokenizers' is not read: a run that starts from %s has its tokenizers", config.init)
        place = torch.device("cpu") if config.workers else device
        found = encoding.read(config.init, device=place)
        vocabulary, max_len, tokenizers = layout_of(config, found.vocabulary), found.max_len, found.tokenizers
        if vocabulary != found.vocabulary:
            told, text = told_of(config.init), tokenizers.text
            assert isinstance(text, ByteLevelText)
            made = with_media(checkpoint.resolve(told.backbone), text, vocabulary, sources_of(told), device=place)
            tokenizers = replace(made, video=replace(tokenizers.video, image=made.image))
    if config.num_frames:
        tokenizers = replace(tokenizers, video=replace(tokenizers.video, num_frames=config.num_frames))
    if config.tasks:
        _require_world(config, vocabulary)
    return RowEncoder(
        tasks=with_lengths(TABLES[vocabulary.name], config.lengths, tokenizers),
        vocabulary=vocabulary,
        tokenizers=tokenizers,
        max_len=max_len,
    )


def _require_world(config: TrainConfig, vocabulary: Vocabulary) -> None:
    """ConfigError unless the rows of Emoji World mean something to the model."""
    try:
        EMBEDDED.require_equal(vocabulary)
    except VocabularyError as error:
        raise ConfigError(
            f"[tasks] is Emoji World, which is told in the ids of the embedded model alone, and {config.init} has the "
            f"layout {vocabulary.name} ({error}); leave [tasks] out and name data of your own: [data.NAME]"
        ) from error


def with_lengths(
    tasks: Mapping[str, Task], lengths: Mapping[str, Mapping[str, int]], tokenizers: Tokenizers
) -> Mapping[str, Task]:
    """A task table with other lengths.

    Raises:
        ConfigError: If a task or a length is unknown, or no picture or video has so many codes.
    """
    changed = dict(tasks)
    for name, told in lengths.items():
        if name not in tasks:
            raise ConfigError(f"setting 'lengths' names the unknown task {name!r}{suggest(name, tasks)}")
        task = tasks[name]
        is_seeing = bool({Modality.IMAGE, Modality.VIDEO} & set(task.conditions))
        known = [*map(str, task.lengths), *([GIVEN_PX] if is_seeing else [])]
        for key, length in told.items():
            path = f"lengths.{name}.{key}"
            if key not in known:
                raise ConfigError(f"unknown setting {path!r}{suggest(key, known)}")
            if problem := _problem(key, length, tokenizers):
                raise ConfigError(f"setting {path!r} is {length}; expected {problem}")
        given_px = told.get(GIVEN_PX, task.given_px)
        only = {key: length for key, length in told.items() if key != GIVEN_PX}
        changed[name] = replace(task, lengths={**task.lengths, **only}, given_px=given_px)
    return changed


def _problem(key: str, length: int, tokenizers: Tokenizers) -> str:
    """What a length should have been; empty where it can be used."""
    num_frames = tokenizers.video.num_frames if key == Modality.VIDEO else 1
    if length < 1:
        return "at least 1"
    if key == GIVEN_PX and length % tokenizers.image.downsample:
        return f"a multiple of {tokenizers.image.downsample}"
    if key in (Modality.IMAGE, Modality.VIDEO):
        cells = math.isqrt(length // num_frames)
        if cells * cells * num_frames != length:
            return f"{'a square number' if num_frames == 1 else f'{num_frames} times a square number'} of codes"
    return ""


def tokenizers_of(config: TrainConfig) -> Tokenizers:
    """Tokenizers in the embedded layout for new weights: a model's, else the trained codecs and the run's own text.

    Raises:
        CheckpointError: If one is missing or damaged.
    """
    if config.tokenizers:
        found = encoding.read(config.tokenizers)
        found.vocabulary.require_equal(EMBEDDED)
        return replace(found.tokenizers, text=_own_text(config)) if config.own_text else found.tokenizers
    image = SmallImageTokenizer.load(config.image_tokenizer)
    return Tokenizers(
        text=_own_text(config),
        image=image,
        video=VideoTokenizer(image=image, num_frames=NUM_FRAMES, rate_hz=FRAME_RATE_HZ),
        speech=read_speech_codec(config.speech_tokenizer),
    )


def _own_text(config: TrainConfig) -> ByteLevelText:
    return text_tokenizer(config.output / config.name, EmojiWorld(config.seed))


def text_tokenizer(folder: Path, world: EmojiWorld) -> ByteLevelText:
    """The run's text tokenizer; learned and kept at the first call."""
    path = folder / "tokenizer.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with replace_whole(path) as temporary:
            made = ByteLevelText.train(corpus(world), size=len(EMBEDDED.text)).to_json()
            temporary.write_text(made, encoding="utf-8")
    return ByteLevelText.load(path)


def corpus(world: EmojiWorld) -> Iterator[str]:
    """Texts of all kinds, given and made."""
    for task, index in itertools.product(TEXT_TASKS, range(CORPUS_EXAMPLES)):
        example = world.sentence(task, index)
        values = (*example.condition.values(), *example.target.values())
        yield from (value for value in values if isinstance(value, str))


# ---- weights --------------------------------------------------------------------------------------------------------


def told_of(init: str) -> ModelFile:
    """Where the parts of the model are that a run starts from."""
    return read_description(init) if is_description(init) else ModelFile(backbone=init)


def sources_of(told: ModelFile) -> MediaSources:
    """Its tokenizers of media, where they are named."""
    return MediaSources(image=told.image or None, speech=told.speech or None)


def network_of(config: TrainConfig, device: torch.device) -> Transformer:
    """The network at its first step: new or from a model, with adapters where they are asked for.

    What learns is in float32. A published network that stays as it is beside adapters is held as it is stored, where
    products are made in bfloat16.

    Raises:
        CheckpointError: If the model that the run starts from is missing or damaged.
        ConfigError: If it cannot have the wanted layout, or its weights cannot learn.
    """
    if not config.init:
        try:
            sizes = replace(EMBEDDED_MODEL, **config.network)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"setting 'network' is {dict(config.network)}: {error}") from error
        model = Transformer(sizes).to(device)
        initialise(model, torch.Generator(device=device).manual_seed(config.seed))
        return model
    told = told_of(config.init)
    if told.weights and not config.weights:
        raise ConfigError(f"{config.init}: has weights in {told.weights}; leave that out, or set 'weights' of the run")
    start = load(
        told.backbone,
        device=device,
        dtype=None if config.lora.rank and config.dtype == "bfloat16" else torch.float32,
        sources=sources_of(told),
        text_len=told.text_len or None,
        weights=config.weights,
    )
    model = start.model.train()
    after = layout_of(config, start.vocabulary)
    if after != start.vocabulary:
        widen(model, start.vocabulary, after, how=config.new_rows, seed=config.seed)
    if config.lora.rank:
        adapters.add(model, config.lora, seed=config.seed)
    else:
        model.requires_grad_(True)
    return model


def layout_of(config: TrainConfig, before: Vocabulary) -> Vocabulary:
    """The layout in which a run that starts from a model trains.

    Raises:
        ConfigError: If the model cannot have the wanted layout.
    """
    if not config.layout:
        return before
    if before.name not in FAMILIES:
        raise ConfigError(
            f"setting 'layout' is {config.layout!r}, but {config.init} has the layout {before.name}, whose ids mean "
            "other things; leave 'layout' out"
        )
    family = FAMILIES[config.layout]
    first = config.text_len or first_code(before)
    try:
        return family.layout(first, max(family.num_rows, before.size))
    except VocabularyError as error:
        raise ConfigError(f"setting 'text_len' is {first}: image codes cannot begin there ({error})") from error


@torch.no_grad()
def widen(model: Transformer, before: Vocabulary, after: Vocabulary, *, how: NewRows, seed: int) -> None:
    """Give both tables of a network the rows of a larger layout, in place; codes keep their rows, wherever they move.

    New rows come after the old ones, then rows move to where the new layout has them. The rows behind the last id of
    the old layout stay where they are and become codes of speech, as far as those reach down to them.

    Args:
        after: With the codes of `before` and more, and at least its size.
        how: See `new_rows`.
    """
    generator = torch.Generator().manual_seed(seed)
    grown = FAMILIES[after.name].layout(first_code(before if len(before.image) else after), after.size)
    order = row_order(grown, after)
    for table in (model.embed, model.output):
        old = table.weight
        more = new_rows(old.cpu(), after.size - before.size, how, generator).to(old)
        table.weight = nn.Parameter(torch.cat([old, more])[order.to(old.device)], requires_grad=old.requires_grad)
    model.embed.num_embeddings = model.output.out_features = after.size
    model.config = replace(model.config, num_rows=after.size)


def new_rows(old: Float[Tensor, "N D"], count: int, how: NewRows, generator: torch.Generator) -> Float[Tensor, "M D"]:
    """Rows for ids that a table does not have yet, in float32.

    Args:
        how: "mean" draws from a normal with the mean of the old rows and a billionth of their covariance, so that all
            start as nearly the same row; where the covariance has no Cholesky factor, every row is the mean. "normal"
            draws each number by itself, of mean 0 and deviation 0.02.

    Parity:
        "mean" is what the published training relies on: `resize_token_embeddings` of transformers 4.47 with its
        `mean_resizing`. Same distribution, other draws; the factor is taken in float64.
    """
    noise = torch.randn(count, old.shape[1], generator=generator)
    if how == "normal":
        return PLAIN_STD * noise
    rows = old.float()
    mean = rows.mean(dim=0)
    centred = rows - mean
    factor, failed = torch.linalg.cholesky_ex((centred.T @ centred / len(rows)).double())
    if bool(failed):
        return mean.expand(count, -1).clone()
    return mean + math.sqrt(NEARNESS) * (noise.double() @ factor.T).float()


def started_from(init: str) -> dict[str, object]:
    """What is told of the model that a run started from, if it did; that model may be about to be replaced."""
    if not init:
        return {}
    place = checkpoint.resolve(told_of(init).backbone) / "backbone"
    if not place.is_dir():
        return {"started from": init}
    known = checkpoint.load(place).provenance
    told = [f"{value} {name}" for name, value in known.items() if name in _TOLD]
    earlier = f", itself started from {known['started from']}" if "started from" in known else ""
    return {"started from": f"a model of {', '.join(told) or 'unknown training'}{earlier}"}


_TOLD = ("steps", "million positions trained on, padding left out", "hours")
