"""Sizes of VideoChat-Flash, and what a published `config.json` says of them.

Enters: nothing, or the keys of a published config. Leaves: `VideoChatConfig`; its defaults are the published model
`VideoChat-Flash-Qwen2-7B_res448` as VIRST uses it, narrow ones are for tests. Does not know networks or files.

Source:
    VIRST, arXiv:2603.27060; VideoChat-Flash, arXiv:2501.00574; `AIDASLab/VIRST model/config.json`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from dynin.errors import CheckpointError, ConfigError

MODEL_TYPES = ("videochat_flash_qwen", "virst")
MOST = 2**24
"""Larger numbers in a config come from damage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TowerConfig:
    """The transformer that sees (UMT-L)."""

    width: int = 1024
    num_layers: int = 23
    """Layers that run. The published one was trained with 24, and its last but one is read."""
    num_heads: int = 16
    mlp_dim: int = 4096
    patch_px: int = 16
    frame_px: int = 448
    """Side of the square frames."""
    clip_frames: int = 4
    """Frames that attend to each other."""
    trained_side: int = 14
    """Patches along a side for which positions were made; other sides interpolate them."""
    trained_frames: int = 4
    """Frames of a clip for which positions were made."""
    block_norm_eps: float = 1e-6
    norm_eps: float = 1e-12
    """Of the last norm."""

    def __post_init__(self) -> None:
        """ConfigError for sizes that do not fit together."""
        _require_positive(self, "tower")
        if self.width % self.num_heads or self.width % 2:
            raise ConfigError(
                f"the tower is {self.width} wide with {self.num_heads} heads; the width must be even and a multiple of "
                "the heads"
            )
        if self.frame_px % self.patch_px:
            raise ConfigError(f"frames of {self.frame_px} px are not made of patches of {self.patch_px} px")

    @property
    def side(self) -> int:
        """Patches along a side of a frame."""
        return self.frame_px // self.patch_px


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageConfig:
    """The language model (Qwen2-7B)."""

    width: int = 3584
    num_layers: int = 28
    num_heads: int = 28
    num_kv_heads: int = 4
    mlp_dim: int = 18_944
    num_rows: int = 152_064
    """Rows of the embedding table and of the output table; VIRST's checkpoint has 151,647, see `convert`."""
    rope_theta: float = 1_000_000.0
    norm_eps: float = 1e-6
    max_len: int = 32_768
    """Most positions of a row, the video's among them."""

    def __post_init__(self) -> None:
        """ConfigError for sizes that do not fit together."""
        _require_positive(self, "language")
        if self.width % self.num_heads or self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"the language model is {self.width} wide with {self.num_heads} heads and {self.num_kv_heads} of keys; "
                "each must be a multiple of the next"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoChatConfig:
    """The whole backbone."""

    tower: TowerConfig = field(default_factory=TowerConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    tokens_per_frame: int = 16
    """What the patches of a clip are merged to, for each of its frames."""
    tokens_per_picture: int = 64
    """What the patches of a single picture are merged to."""
    merges_exactly: bool = True
    """Rate likeness and count merged patches in float32 whatever the weights are stored in.

    Parity: the published code does both in the working type; bfloat16 rounds counts above 256, and likenesses that
    decide what is merged."""
    num_st: int = 10
    has_distinct_st: bool = False
    """An embedding for each [ST] token; the published model has one row of its table for all of them."""
    max_frames: int = 64
    """Most frames of a video seen at once; the published evaluation stops there, the length allows more."""
    clips_at_once: int = 16
    """Clips that pass the tower together; bounds memory and changes nothing but rounding."""

    def __post_init__(self) -> None:
        """ConfigError for sizes that do not fit together."""
        _require_positive(self, "videochat")
        for name, tokens, patches in (
            ("tokens_per_frame", self.tokens_per_frame, self.tower.side**2),
            ("tokens_per_picture", self.tokens_per_picture, self.tower.side**2),
        ):
            if tokens > patches:
                raise ConfigError(f"{name} is {tokens}, but a frame has {patches} patches; merging adds none")

    @property
    def tokens_per_clip(self) -> int:
        """What the patches of a clip are merged to."""
        return self.tokens_per_frame * self.tower.clip_frames

    def num_tokens(self, num_frames: int) -> int:
        """Places that a video takes in a row; the last frame is repeated until its last clip is full."""
        if num_frames == 1:
            return self.tokens_per_picture
        return math.ceil(num_frames / self.tower.clip_frames) * self.tokens_per_clip

    def with_rows(self, num_rows: int) -> "VideoChatConfig":
        """The same with tables of another length."""
        return replace(self, language=replace(self.language, num_rows=num_rows))


_ONLY: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "attention_dropout": (0.0, 0),
        "hidden_act": ("silu",),
        "mm_llm_compress": (False,),
        "mm_newline_position": ("nothing",),
        "mm_patch_merge_type": ("spatial_nopad",),
        "mm_projector_type": ("tome16_mlp_hd64",),
        "mm_vision_select_layer": (-2,),
        "mm_vision_tower": ("umt-hd-large",),
        "rope_scaling": (None,),
        "tie_word_embeddings": (False,),
        "use_pos_skipping": (False,),
        "use_sliding_window": (False,),
        "vision_encode_type": ("video_image",),
    }
)
"""Keys that decide the arithmetic; other values are not implemented."""

_WHOLE = {
    "hidden_size": "width",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "intermediate_size": "mlp_dim",
    "vocab_size": "num_rows",
    "max_position_embeddings": "max_len",
}
_REAL = {"rope_theta": "rope_theta", "rms_norm_eps": "norm_eps"}


def from_published(values: Mapping[str, object], place: Path) -> VideoChatConfig:
    """The sizes that a published `config.json` tells; those that it leaves out are the published model's.

    Raises:
        CheckpointError: If it is another model's, or has a value that is not implemented.
    """
    if values.get("model_type") not in MODEL_TYPES:
        raise CheckpointError(
            f"{place}: model_type is {values.get('model_type')!r}, expected {' or '.join(MODEL_TYPES)}; name the "
            "folder of VideoChat-Flash or of VIRST"
        )
    wrong = [
        f"{key} is {values[key]!r}, expected {' or '.join(map(repr, allowed))}"
        for key, allowed in _ONLY.items()
        if key in values and values[key] not in allowed
    ]
    default = VideoChatConfig()
    language: dict[str, int | float] = {}
    for key, name in _WHOLE.items():
        language[name] = _number(values.get(key, getattr(default.language, name)), int, key, wrong)
    for key, name in _REAL.items():
        language[name] = _number(values.get(key, getattr(default.language, name)), float, key, wrong)
    clip_frames = _number(
        values.get("mm_local_num_frames", default.tower.clip_frames), int, "mm_local_num_frames", wrong
    )
    width = _number(values.get("mm_hidden_size", default.tower.width), int, "mm_hidden_size", wrong)
    if wrong:
        raise CheckpointError(f"{place}: not a network of this family: {'; '.join(wrong)}; fetch the config again")
    try:
        tower = replace(default.tower, clip_frames=int(clip_frames), width=int(width))
        return replace(default, tower=tower, language=LanguageConfig(**language))  # type: ignore[arg-type]
    except ConfigError as error:
        raise CheckpointError(f"{place}: {error}") from error


def _number(value: object, kind: type[int] | type[float], key: str, wrong: list[str]) -> int | float:
    """A positive number; what is none goes to the list of faults."""
    allowed = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or not 0 < value <= MOST:
        wrong.append(f"{key} is {value!r}, expected a positive {'whole ' if kind is int else ''}number")
        return 1
    return value  # type: ignore[return-value]


def _require_positive(config: object, part: str) -> None:
    """ConfigError for a number that is not above 0."""
    for name in config.__slots__:  # type: ignore[attr-defined]
        value = getattr(config, name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
            raise ConfigError(f"{part}: {name} is {value}; expected a number above 0")
