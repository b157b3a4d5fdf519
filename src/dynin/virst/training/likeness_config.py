"""What a training of a small image-text model is: one TOML file.

Enters: values read by `dynin.config`. Leaves: frozen, checked settings. Does not know tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dynin.config import AT_LEAST_ONE, AT_LEAST_ZERO, SHARE, require_ranges, require_run_name
from dynin.errors import ConfigError
from dynin.training.config import OptimizerConfig
from dynin.virst.training.config import DataConfig

FEWEST_IDS = 512
"""Of a vocabulary: 256 bytes, two marks, and some room for words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LikenessSizes:
    """Sizes of a new CLIP; both of its halves are equally wide."""

    image_px: int = 64
    patch_px: int = 8
    width: int = 64
    heads: int = 2
    image_layers: int = 4
    text_layers: int = 2
    ff_factor: int = 4
    """Width of the feed-forward part over the width of the states."""
    num_ids: int = 1024
    """Most ids of the tokenizer."""
    max_len: int = 40
    """Most ids of a sentence, marks included; what is longer is cut."""

    def __post_init__(self) -> None:
        """ConfigError for sizes that do not go together."""
        names = ("image_px", "patch_px", "width", "heads", "image_layers", "text_layers", "ff_factor", "max_len")
        require_ranges(self, dict.fromkeys(names, AT_LEAST_ONE), "sizes.")
        if self.image_px % self.patch_px or self.width % self.heads:
            raise ConfigError(
                f"settings 'sizes.image_px' {self.image_px}, 'sizes.patch_px' {self.patch_px}, 'sizes.width' "
                f"{self.width} and 'sizes.heads' {self.heads}: patches must fill the picture and heads the width"
            )
        if self.num_ids < FEWEST_IDS:
            raise ConfigError(f"setting 'sizes.num_ids' is {self.num_ids}; expected at least {FEWEST_IDS}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LikenessTrainConfig:
    """One training."""

    name: str
    """The run's folder below `output`."""
    steps: int
    sizes: LikenessSizes = LikenessSizes()
    """Of a new CLIP; with `init` they are that one's."""
    init: str = ""
    """A CLIP to go on from, with its tokenizer: a folder or hub id; empty starts a new one."""
    data: Mapping[str, DataConfig] = field(default_factory=lambda: {"world": DataConfig()})
    """Sources of videos or pictures with sentences, by any name: tables [data.NAME]."""
    held_out: Mapping[str, DataConfig] = field(default_factory=dict)
    """Sources on which the trained model is measured: tables [held_out.NAME]."""
    held_out_videos: int = 200
    """Videos of each of them."""
    seed: int = 0
    videos_per_step: int = 28
    frames_per_video: int = 4
    """Most frames of one video in a step."""
    texts_per_frame: int = 3
    """Sentences that go with each frame: the first refers to something that is visible in it, the others too, or are
    plain names of what is visible, where the source knows names."""
    least_px: int = 16
    """Pixels of a thing that a sentence means which must be visible where the sentence goes with a frame."""
    spot_share: float = 0.0
    """Of the frames at the first step, how many show the box of one thing alone, on grey, with sentences about it: what
    words mean is learned sooner so."""
    spot_steps: int = 1000
    """The share falls to 0 in a straight line over so many steps."""
    temperature: float = 0.07
    """By which likenesses are divided in the beginning; it is learned."""
    output: Path = Path("runs/virst")
    log_every: int = 50
    save_every: int = 1000
    tensorboard: bool = False
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=1e-3, matrix_rate=0.0, schedule="cosine", average_decay=0.99
        )
    )

    def __post_init__(self) -> None:
        """ConfigError for counts below what they must be, or nothing to draw from."""
        counts = (
            "steps",
            "held_out_videos",
            "videos_per_step",
            "frames_per_video",
            "texts_per_frame",
            "least_px",
            "log_every",
            "save_every",
        )
        require_ranges(self, dict.fromkeys(counts, AT_LEAST_ONE))
        require_ranges(self, {"seed": AT_LEAST_ZERO, "spot_share": SHARE, "spot_steps": AT_LEAST_ONE})
        require_run_name(self.name)
        if not self.temperature > 0:
            raise ConfigError(f"setting 'temperature' is {self.temperature}; expected a number above 0")
        if not any(source.weight > 0 for source in self.data.values()):
            raise ConfigError(f"setting 'data' is {dict(self.data)}: nothing is drawn; give a weight above 0")
        self.optimizer.require_adamw()
