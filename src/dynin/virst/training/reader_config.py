"""What a training of the reader of frames is: one TOML file.

Enters: values read by `dynin.config`. Leaves: frozen, checked settings. Does not know tensors.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dynin.config import AT_LEAST_ONE, AT_LEAST_ZERO, require_ranges, require_run_name
from dynin.data.referring.emoji_world import NUM_FRAMES, SIDE_PX
from dynin.errors import ConfigError
from dynin.training.config import OptimizerConfig
from dynin.virst.config import READER_STEP


@dataclass(frozen=True, kw_only=True, slots=True)
class ReaderTrainConfig:
    """One training."""

    name: str
    """The run's folder below `output`."""
    steps: int
    init: str = ""
    """The model whose picture tokenizer's codes are learned: a folder or hub id; empty for the embedded one."""
    width: int = 64
    seed: int = 0
    crowds_per_step: int = 8
    """Crowds: pictures of things at any place, with one ground and a common stock of things, see `reader_source`."""
    pictures_per_crowd: int = 8
    things_per_picture: int = 8
    stills_per_step: int = 4
    """Of Emoji World, as the two below."""
    videos_per_step: int = 1
    frames_per_video: int = 4
    films_from: int = 0
    """The step from which stills and videos are drawn too; before it there are crowds alone, which are cheap."""
    num_videos: int = 20000
    """Videos, and stills, of Emoji World among which is drawn."""
    num_frames: int = NUM_FRAMES
    """Of each of those videos."""
    side_px: int = SIDE_PX
    ground_weight: float = 0.5
    """How much a patch with the middle of no thing counts in the loss, over one with such."""
    held_out_videos: int = 100
    """Held-out videos, and as many stills, on which the trained reader is measured."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """In what the network computes while it learns; weights and loss are float32 all the same."""
    output: Path = Path("runs/virst")
    log_every: int = 50
    save_every: int = 250
    tensorboard: bool = False
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=3e-3, matrix_rate=0.0, schedule="cosine", average_decay=0.99
        )
    )

    def __post_init__(self) -> None:
        """ConfigError for counts below what they must be, or nothing to draw from."""
        least_one = (
            "steps",
            "width",
            "pictures_per_crowd",
            "things_per_picture",
            "frames_per_video",
            "held_out_videos",
            "log_every",
            "save_every",
        )
        least_zero = ("seed", "crowds_per_step", "stills_per_step", "videos_per_step", "films_from")
        require_ranges(self, dict.fromkeys(least_one, AT_LEAST_ONE) | dict.fromkeys(least_zero, AT_LEAST_ZERO))
        require_run_name(self.name)
        if self.width % READER_STEP:
            raise ConfigError(f"setting 'width' is {self.width}; expected a multiple of {READER_STEP}")
        if not 0 < self.ground_weight <= 1:
            raise ConfigError(f"setting 'ground_weight' is {self.ground_weight}; expected above 0, up to 1")
        if not self.crowds_per_step and (self.films_from or not self.stills_per_step + self.videos_per_step):
            raise ConfigError(
                "settings 'crowds_per_step', 'stills_per_step', 'videos_per_step' and 'films_from' leave steps without "
                "a picture; give crowds, or films from step 0"
            )
        if self.frames_per_video > self.num_frames:
            raise ConfigError(
                f"setting 'frames_per_video' is {self.frames_per_video} and 'num_frames' is {self.num_frames}: a video "
                "has fewer; lower the first"
            )
        self.optimizer.require_adamw()
