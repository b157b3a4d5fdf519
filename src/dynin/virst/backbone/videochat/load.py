"""A published folder to a backbone: VideoChat-Flash as the hub has it, or the one inside a VIRST checkpoint.

Enters: a folder of safetensors, with `config.json` and a text tokenizer in it or beside it. Leaves: a `VideoChat` that
is ready to read, or what the folder holds besides. Does not know masks or fusions; runs no code that came with a model.

Weights are read shard by shard and go to their device as they are read: at most the weights and one shard are held.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dynin import checkpoint, repository
from dynin.errors import ConfigError
from dynin.model.room import require_memory
from dynin.tokenizers.text import ByteLevelText
from dynin.training import adapters
from dynin.training.config import LoraConfig
from dynin.virst.backbone.videochat import language
from dynin.virst.backbone.videochat.config import VideoChatConfig, from_published
from dynin.virst.backbone.videochat.convert import (
    LORA_ALPHA,
    ST,
    TABLE,
    Contents,
    Part,
    contents_of,
    published_names,
    require_fit,
)
from dynin.virst.backbone.videochat.model import VideoChat
from dynin.virst.backbone.videochat.prompt import PromptConfig
from dynin.virst.config import BackboneConfig

CONFIG = "config.json"
MATRICES = {
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "output": "o_proj",
    "gate": "gate_proj",
    "up": "up_proj",
    "down": "down_proj",
}
"""Targets of adapters by the names that settings have for them."""


def open_folder(folder: Path) -> Contents:
    """Read every header of a folder and sort its tensors into parts; CheckpointError if they do not fit together."""
    return contents_of(repository.open_repository(folder))


def config_of(contents: Contents, config: VideoChatConfig | None = None) -> VideoChatConfig:
    """The sizes of the backbone in a folder: those given, or those its `config.json` tells, else the published ones.

    The tables' own rows count: a published `vocab_size` is out of date once the [ST] token has been added.
    """
    place = contents.files.folder / CONFIG
    if config is None:
        config = from_published(repository.read_json(place), place) if place.is_file() else VideoChatConfig()
    return config.with_rows(contents.num_rows)


def load(
    contents: Contents,
    text: ByteLevelText,
    config: VideoChatConfig,
    *,
    prompt: PromptConfig | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    alpha: float = LORA_ALPHA,
) -> VideoChat:
    """The backbone with its weights, frozen, adapters folded in.

    Args:
        config: As `config_of` gives it.
        device: Where the weights go as they are read; None leaves them where tensors are made by default.
        dtype: What they are cast to, but for the [ST] embeddings, which are in float32; None takes what most are in.
        alpha: Adapters count alpha / rank.

    Raises:
        CheckpointError: If names or shapes differ from the config's, a file is damaged, a weight is not finite, or the
            weights do not fit the memory of the device.
        RequestError: If the package transformers is missing, or the tokenizer belongs to other weights.
    """
    files = contents.files
    kind = files.dtype if dtype is None else dtype
    require_fit(contents, config, text)
    require_memory(str(files.folder), num_bytes(config, text, kind.itemsize), device)
    repository.verify(files.folder, files.shards)
    with torch.device("meta"):
        model = VideoChat(config, text, prompt)
    names = published_names(config, text)
    state: dict[str, Tensor] = {}
    for name, value in contents.stream(Part.BACKBONE, kind, device=device, alpha=alpha):
        state[names[name]] = value
    row = state[names[TABLE]][model.prompter.st_id]
    state[ST] = row.float().repeat(model.st_embed.shape[0], 1)  # what fusions change stays in full precision
    model.load_state_dict(state, assign=True)
    language.refresh_rotary(model.language)
    model.start = files.folder
    return model.eval().requires_grad_(False)


def load_folder(
    folder: Path,
    *,
    config: VideoChatConfig | None = None,
    text_folder: Path | None = None,
    prompt: PromptConfig | None = None,
    num_st: int | None = None,
    has_distinct_st: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> VideoChat:
    """The backbone in a folder; arguments and errors as in `load`.

    Args:
        config: Sizes, where neither `config.json` nor the published model tells them.
        text_folder: Where the text tokenizer is; None looks beside the weights.
        num_st: [ST] tokens of a sentence; None takes the config's.
        has_distinct_st: Give each an embedding of its own, all of which start as the published one.
    """
    contents = open_folder(folder)
    sizes = config_of(contents, config)
    sizes = replace(sizes, num_st=sizes.num_st if num_st is None else num_st, has_distinct_st=has_distinct_st)
    text = language.read_text(folder if text_folder is None else text_folder)
    return load(contents, text, sizes, prompt=prompt, device=device, dtype=dtype)


def load_start(
    config: BackboneConfig,
    *,
    num_st: int,
    has_distinct_st: bool,
    seed: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> VideoChat:
    """The backbone that a VIRST of one's own starts from: frozen, with adapters beside the language model's matrices.

    Args:
        seed: Of the adapters.

    Raises:
        ConfigError: If no start is named, or a setting is for the other backbone; or `peft` is missing.
        CheckpointError: As `load`.
    """
    if not config.start or config.network:
        raise ConfigError(
            "a backbone of kind 'videochat' starts from published weights; name their folder or hub id as "
            "'backbone.start', and leave 'backbone.network' out"
        )
    folder = checkpoint.resolve(config.start)
    sizes = config_of(open_folder(folder))
    if config.frame_px:
        sizes = replace(sizes, tower=replace(sizes.tower, frame_px=config.frame_px))
    model = load_folder(
        folder, config=sizes, num_st=num_st, has_distinct_st=has_distinct_st, device=device, dtype=dtype
    )
    if config.lora.rank:
        add_adapters(model, config.lora, seed=seed)
    model.st_embed.requires_grad_(True)
    return model


def add_adapters(model: VideoChat, config: LoraConfig, *, seed: int) -> None:
    """Put adapters beside matrices of the language model, and nowhere else; `merged` in `training.adapters` folds them.

    Raises:
        ConfigError: If `peft` is missing, or a target is unknown.
    """
    targets = tuple(MATRICES.get(name, name) for name in config.targets)
    adapters.add(model, replace(config, targets=targets), seed=seed, within="language.layers")


def num_bytes(config: VideoChatConfig, text: ByteLevelText, size: int) -> int:
    """Bytes of the weights, `size` for each number; nothing is allocated to tell."""
    with torch.device("meta"):
        model = VideoChat(config, text)
    return size * sum(parameter.numel() for parameter in model.parameters())
