"""Put a run together: network, tokenizers, rows; train; and hand the parts over for export.

Enters: a `TrainConfig`. Leaves: a trained network in the run's folder, and a model folder. Does not know the loop's
arithmetic, what a run starts from (`training.start`), or how a checkpoint is laid out.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from dynin import checkpoint
from dynin.config import to_dict
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
from dynin.model import publish
from dynin.model.transformer import Transformer
from dynin.pipeline.convert import MEDIA, copy_media, media_place
from dynin.pipeline.description import ModelFile
from dynin.pipeline.dynin import Dynin
from dynin.pipeline.folder import save
from dynin.pipeline.published import VIDEO_KEY
from dynin.repository import require_replaceable
from dynin.sequence.layout import Assembler
from dynin.sequence.task import EMBEDDED_TASKS
from dynin.tokenizers.bundle import Tokenizers
from dynin.tokenizers.small.image import SmallImageTokenizer
from dynin.tokenizers.text import ByteLevelText
from dynin.training import adapters, loop, optim, parallel, preview, processes, resume, start, state
from dynin.training.config import LoraConfig, TrainConfig
from dynin.training.journal import Figures
from dynin.training.objective import Objective
from dynin.training.prefetch import RowSource
from dynin.types import Modality
from dynin.vocabulary import EMBEDDED

PROVENANCE_KEY = "dynin_training"
"""Where a published config tells how the model was trained; other engines pass it over."""
REMEMBERED = 1 << 16
"""Texts whose ids are remembered; spoken sentences come again and again."""


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
    side = start.side_of(config, device)
    if config.preview_every and side.vocabulary.name != EMBEDDED.name:
        raise ConfigError(
            f"setting 'preview_every' is {config.preview_every}: previews are of Emoji World, which a model with the "
            f"layout {side.vocabulary.name} does not know; set it to 0"
        )
    source = source_of(config, side)
    model = start.network_of(config, device)
    hooks = loop.Hooks(report=report, preview=partial(_preview, config, side) if config.preview_every else None)
    objective = Objective(side.vocabulary, config.objective, config.pack_length)
    average = loop.train(model, objective, source, config, hooks, resuming=resuming)
    return model, average


def source_of(config: TrainConfig, side: RowEncoder) -> RowSource:
    """The rows that a run learns from: Emoji World, one's own data, or both by weight.

    Raises:
        CheckpointError: If the shard of speech was made by another tokenizer.
        DataError: If own data is missing, was prepared for another model, or has a faulty row.
    """
    world = mixture_of(config, side.tokenizers) if config.tasks else None
    if world is not None and not config.data:
        return world
    weights = {name: told.weight for name, told in config.data.items()}
    return Blend(
        sources={name: open_source(told, side, seed=config.seed) for name, told in config.data.items()},
        weights={**weights, WORLD: config.world_weight} if world else weights,
        maker=side.maker(config.whole_prob),
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
        tasks=start.with_lengths(EMBEDDED_TASKS, config.lengths, tokenizers),
        image=PatchMemo(image) if isinstance(image, SmallImageTokenizer) else image,
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


def export(config: TrainConfig, folder: Path, provenance: Mapping[str, object]) -> None:
    """Write the averaged weights of a run, as they stand, as a model folder with its tokenizers.

    A model with the embedded layout is written in our format. Any other is written in the published one, in bfloat16,
    so that other engines read it; media tokenizers that lie beside its start or that a TOML file names go along, those
    of its family are found by name.

    Args:
        folder: Must not exist, or be a model folder, which is replaced as a whole.
        provenance: What the model card says beside steps, hours, hardware and settings.

    Raises:
        CheckpointError: If the run has saved no state yet, or a tokenizer is missing.
    """
    kept = config.output / config.name / "state"
    learned = state.read_tensors(kept, "average")
    cpu = torch.device("cpu")
    side, model = start.side_of(config, cpu), start.network_of(_plain(config), cpu)
    _put(model, learned, config)
    notes = state.read_notes(kept)
    facts = {
        **provenance,
        **({} if config.tasks else {"data": ", ".join(sorted(told.path for told in config.data.values()))}),
        **start.started_from(config.init),
        "steps": state.read_step(kept),
        "rows in a step": config.rows_per_step,
        "million positions trained on, padding left out": round(notes.get("tokens", 0) / 1e6, 1),
        "hours": round(notes.get("seconds", 0.0) / 3600, 2),
        "hardware": notes.get("hardware", "not recorded"),
        "settings": json.loads(json.dumps(to_dict(config), default=str)),
    }
    made = Dynin.assemble(model, side.tokenizers, side.vocabulary)
    if side.vocabulary.name == EMBEDDED.name:
        save(folder, made, provenance=facts)
    else:
        _publish(folder, made, start.told_of(config.init), facts)


def _publish(folder: Path, model: Dynin, told: ModelFile, facts: Mapping[str, object]) -> None:
    """Write a model in the published layout, with the tokenizers of media that are at hand."""
    require_replaceable(folder)
    text, video = model.tokenizers.text, model.tokenizers.video
    assert isinstance(text, ByteLevelText)
    home, sources = checkpoint.resolve(told.backbone), start.sources_of(told)
    places = {name: media_place(home, name, getattr(sources, name)) for name in MEDIA}
    media = {name: place for name, place in places.items() if place is not None}
    model.tokenizers.prepare(Modality(name) for name in media)  # what cannot be read is not taken along
    more = {
        VIDEO_KEY: {"num_frames": video.num_frames, "rate_hz": video.rate_hz},
        PROVENANCE_KEY: dict(facts),
    }
    card = "# A model trained by Dynin\n\n" + "\n".join(
        f"- {name}: {value}" for name, value in facts.items() if name != "settings"
    )

    def write(fresh: Path) -> None:
        publish.write(fresh, model.model, model.vocabulary, text.to_json(), dtype=torch.bfloat16, card=card, more=more)
        for name, place in media.items():
            copy_media(place, fresh / name)

    checkpoint.replace_folder(folder, write)


def _plain(config: TrainConfig) -> TrainConfig:
    """The settings whose network is the start alone, in float32."""
    return replace(config, lora=LoraConfig(), weights="")


def _put(model: Transformer, learned: Mapping[str, Tensor], config: TrainConfig) -> None:
    """What a run learned into a network that has its start."""
    weights = model.state_dict()
    values = adapters.merged(weights, learned, config.lora) if config.lora.rank else {**weights, **learned}
    try:
        model.load_state_dict({name: value.float() for name, value in values.items()})
    except RuntimeError as error:
        raise CheckpointError(f"the state is of another network than {config.init or 'these settings'}") from error


def _preview(config: TrainConfig, side: RowEncoder, step: int, model: Transformer, average: optim.Average) -> None:
    """Put the averaged weights into a network of their own and let it draw, tell and speak."""
    learned = {name: parallel.whole(value).cpu() for name, value in average.tensors.items()}
    if processes.rank() != 0:
        return
    own = start.network_of(_plain(config), torch.device("cpu"))
    _put(own, learned, config)
    preview.make(
        Dynin.assemble(own, side.tokenizers, side.vocabulary),
        {DRAWN[name].task for name, weight in config.tasks.items() if weight > 0},
        config.output / config.name / "previews",
        step,
    )
