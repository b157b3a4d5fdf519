"""Put a run together: network, tokenizers, rows; train; and hand the parts over for export.

Enters: a `TrainConfig`. Leaves: a trained network in the run's folder, with its text tokenizer. Does not know the
loop's arithmetic or how a checkpoint is laid out.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from dynin import checkpoint
from dynin.config import to_dict
from dynin.data.emoji_world.clip import FRAME_RATE_HZ, NUM_FRAMES
from dynin.data.emoji_world.splits import Split
from dynin.data.emoji_world.world import EmojiWorld
from dynin.data.mixture import Mixture
from dynin.data.patch_memo import PatchMemo
from dynin.data.records.blend import WORLD, Blend
from dynin.data.records.encoder import RowEncoder
from dynin.data.records.sources import open_source
from dynin.data.rows import RowMaker
from dynin.data.utterances import Utterances
from dynin.data.variants import DRAWN
from dynin.errors import CheckpointError, ConfigError
from dynin.media.files import replace_whole
from dynin.model.config import EMBEDDED as EMBEDDED_MODEL
from dynin.model.transformer import Transformer, initialise
from dynin.pipeline.dynin import Dynin
from dynin.pipeline.folder import load, save
from dynin.sequence.layout import Assembler
from dynin.sequence.task import EMBEDDED_TASKS
from dynin.tokenizers.bundle import Tokenizers
from dynin.tokenizers.small.image import SmallImageTokenizer
from dynin.tokenizers.text import ByteLevelText
from dynin.tokenizers.video import VideoTokenizer
from dynin.training import adapters, loop, optim, parallel, preview, processes, resume, state
from dynin.training.ahead import RowSource
from dynin.training.codec_speech import read_speech_codec
from dynin.training.config import LoraConfig, TrainConfig
from dynin.training.journal import Figures
from dynin.training.objective import Objective
from dynin.vocabulary import EMBEDDED

CORPUS_EXAMPLES = 3000
"""Examples of each task whose text the text tokenizer learns its merges from."""
REMEMBERED = 1 << 16
"""Texts whose ids are remembered; spoken sentences come again and again."""
_TOLD = ("steps", "million positions trained on, padding left out", "hours")
TEXT_TASKS = ("t2t", "i2t", "v2t", "t2i", "i2i", "t2v", "i2v", "v2v", "v2i", "s2t")


def corpus(world: EmojiWorld) -> Iterator[str]:
    """Texts of all kinds, given and made."""
    for task, index in itertools.product(TEXT_TASKS, range(CORPUS_EXAMPLES)):
        example = world.sentence(task, index)
        values = (*example.condition.values(), *example.target.values())
        yield from (value for value in values if isinstance(value, str))


def text_tokenizer(folder: Path, world: EmojiWorld) -> ByteLevelText:
    """The run's text tokenizer; learned and kept at the first call."""
    path = folder / "tokenizer.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with replace_whole(path) as temporary:
            made = ByteLevelText.train(corpus(world), size=len(EMBEDDED.text)).to_json()
            temporary.write_text(made, encoding="utf-8")
    return ByteLevelText.load(path)


def tokenizers_of(config: TrainConfig) -> Tokenizers:
    """Those of a model, else the trained codecs and the run's own text tokenizer.

    Raises:
        CheckpointError: If one is missing or damaged.
    """
    if config.init or config.tokenizers:
        given = load(config.init or config.tokenizers).tokenizers
        return replace(given, text=_own_text(config)) if config.own_text else given
    image = SmallImageTokenizer.load(config.image_tokenizer)
    return Tokenizers(
        text=_own_text(config),
        image=image,
        video=VideoTokenizer(image=image, num_frames=NUM_FRAMES, rate_hz=FRAME_RATE_HZ),
        speech=read_speech_codec(config.speech_tokenizer),
    )


def _own_text(config: TrainConfig) -> ByteLevelText:
    return text_tokenizer(config.output / config.name, EmojiWorld(config.seed))


def run(
    config: TrainConfig,
    *,
    device: torch.device,
    report: Callable[[Figures], None],
    resuming: resume.Policy = resume.EXACT,
) -> tuple[Transformer, optim.Average]:
    """Train or resume; returns the network and its averaged weights.

    Raises:
        CheckpointError: If `init` names no model that fits, or the saved state cannot be resumed.
        ConfigError: If settings contradict each other or the model.
    """
    tokenizers = tokenizers_of(config)
    model = network_of(config, device)
    hooks = loop.Hooks(report=report, preview=partial(_preview, config, tokenizers) if config.preview_every else None)
    objective = Objective(EMBEDDED, config.objective, config.pack_length)
    average = loop.train(model, objective, source_of(config, tokenizers), config, hooks, resuming=resuming)
    return model, average


def source_of(config: TrainConfig, tokenizers: Tokenizers) -> RowSource:
    """The rows that a run learns from: Emoji World, one's own data, or both by weight.

    Raises:
        CheckpointError: If the shard of speech was made by another tokenizer.
        DataError: If own data is missing, was prepared for another model, or has a faulty row.
    """
    world = mixture_of(config, tokenizers) if config.tasks else None
    if world is not None and not config.data:
        return world
    encoder = RowEncoder(
        tasks=EMBEDDED_TASKS, vocabulary=EMBEDDED, tokenizers=tokenizers, max_len=EMBEDDED_MODEL.max_len
    )
    weights = {name: told.weight for name, told in config.data.items()}
    return Blend(
        sources={name: open_source(told, encoder, seed=config.seed) for name, told in config.data.items()},
        weights={**weights, WORLD: config.world_weight} if world else weights,
        maker=encoder.maker(config.whole_prob),
        rows_per_step=config.rows_per_step,
        drop_prob=config.drop_prob,
        seed=config.seed,
        world=world,
    )


def mixture_of(config: TrainConfig, tokenizers: Tokenizers, split: Split = "train") -> Mixture:
    """Rows of Emoji World and of the shards of speech.

    Raises:
        CheckpointError: If a shard was made by another tokenizer.
    """
    image = tokenizers.image
    maker = RowMaker(
        assembler=Assembler(vocabulary=EMBEDDED, encode_text=lru_cache(REMEMBERED)(tokenizers.text.encode)),
        tasks=EMBEDDED_TASKS,
        image=image,
        memo=PatchMemo(image) if isinstance(image, SmallImageTokenizer) else None,
        whole_prob=config.whole_prob,
    )
    weights = {name: weight for name, weight in config.tasks.items() if weight > 0}
    world = partial(EmojiWorld, config.seed, split, counting_share=config.counting_share)
    return Mixture(
        world=world(),
        early_world=EmojiWorld(config.seed, split, max_things=1),
        worlds={name: world(**DRAWN[name].world) for name in weights if DRAWN[name].world},
        maker=maker,
        weights=weights,
        rows_per_step=config.rows_per_step,
        curriculum_steps=config.curriculum_steps,
        drop_prob=config.drop_prob,
        seed=config.seed,
        utterances=_utterances(config.speech_shard, tokenizers),
        long_utterances=_utterances(config.long_speech_shard, tokenizers),
    )


def _utterances(shard: str, tokenizers: Tokenizers) -> Utterances | None:
    """A shard of speech, made by the run's own tokenizer."""
    if not shard:
        return None
    utterances, made_by = Utterances.read(Path(shard)), tokenizers.fingerprints()["speech"]
    if utterances.fingerprint not in ("", made_by):
        raise CheckpointError(
            f"the codes in {shard} were made by another speech tokenizer than this run's; make the shard anew with "
            "`dynin data speech --codec`"
        )
    return utterances


def network_of(config: TrainConfig, device: torch.device) -> Transformer:
    """The network at its first step: new or from a model, with adapters where they are asked for.

    Raises:
        CheckpointError: If the model that the run starts from is of another vocabulary.
    """
    if not config.init:
        try:
            sizes = replace(EMBEDDED_MODEL, **config.network)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"setting 'network' is {dict(config.network)}: {error}") from error
        model = Transformer(sizes).to(device)
        initialise(model, torch.Generator(device=device).manual_seed(config.seed))
        return model
    start = load(config.init, device=device, weights=config.weights)
    start.vocabulary.require_equal(EMBEDDED)
    model = start.model.train()
    if config.lora.rank:
        adapters.add(model, config.lora, seed=config.seed)
    else:
        model.requires_grad_(True)
    return model


def export(config: TrainConfig, folder: Path, provenance: Mapping[str, object]) -> None:
    """Write the averaged weights of a run, as they stand, as a model folder with its tokenizers.

    Args:
        folder: Must not exist, or be a model folder, which is replaced as a whole.
        provenance: What the model card says beside steps, hours, hardware and settings.

    Raises:
        CheckpointError: If the run has saved no state yet, or a tokenizer is missing.
    """
    kept = config.output / config.name / "state"
    learned = state.read_tensors(kept, "average")
    model = network_of(replace(config, lora=LoraConfig(), weights=""), torch.device("cpu"))
    _put(model, learned, config)
    notes = state.read_notes(kept)
    facts = {
        **provenance,
        **_started_from(config.init),
        "steps": state.read_step(kept),
        "rows in a step": config.rows_per_step,
        "million positions trained on, padding left out": round(notes.get("tokens", 0) / 1e6, 1),
        "hours": round(notes.get("seconds", 0.0) / 3600, 2),
        "hardware": notes.get("hardware", "not recorded"),
        "settings": json.loads(json.dumps(to_dict(config), default=str)),
    }
    save(folder, Dynin.assemble(model, tokenizers_of(config), EMBEDDED), provenance=facts)


def _put(model: Transformer, learned: Mapping[str, Tensor], config: TrainConfig) -> None:
    """What a run learned into a network that has its start."""
    weights = model.state_dict()
    values = adapters.merged(weights, learned, config.lora) if config.lora.rank else {**weights, **learned}
    try:
        model.load_state_dict({name: value.float() for name, value in values.items()})
    except RuntimeError as error:
        raise CheckpointError(f"the state is of another network than {config.init or 'these settings'}") from error


def _started_from(init: str) -> dict[str, object]:
    """What is told of the model that a run started from, if it did; that model may be about to be replaced."""
    if not init:
        return {}
    known = checkpoint.load(checkpoint.resolve(init) / "backbone").provenance
    told = [f"{value} {name}" for name, value in known.items() if name in _TOLD]
    earlier = f", itself started from {known['started from']}" if "started from" in known else ""
    return {"started from": f"a model of {', '.join(told) or 'unknown training'}{earlier}"}


def _preview(
    config: TrainConfig, tokenizers: Tokenizers, step: int, model: Transformer, average: optim.Average
) -> None:
    """Put the averaged weights into a network of their own and let it draw, tell and speak."""
    learned = {name: parallel.whole(value).cpu() for name, value in average.tensors.items()}
    if processes.rank() != 0:
        return
    own = network_of(replace(config, lora=LoraConfig(), weights=""), torch.device("cpu"))
    _put(own, learned, config)
    preview.make(
        Dynin.assemble(own, tokenizers, EMBEDDED),
        {DRAWN[name].task for name, weight in config.tasks.items() if weight > 0},
        config.output / config.name / "previews",
        step,
    )
