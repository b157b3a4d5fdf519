"""What a training of VIRST is: one TOML file for each stage.

Enters: values read by `dynin.config`. Leaves: frozen, checked settings. Does not know tensors.

    stage         what learns                                         masks come from
    warm          the mask branch, from the start                     boxes and memory; no sentence is read
    alignment     fusions, adapters, [ST] embeddings                  the prompts of each frame
    few_frame     the same, mask decoder and memory                   the prompts of each frame
    propagation   the same, and the image encoder of the branch       the prompts of some frames, and memory
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dynin.config import require_run_name
from dynin.data.referring.emoji_world import NUM_FRAMES, SIDE_PX
from dynin.errors import ConfigError
from dynin.training.config import OptimizerConfig
from dynin.virst.branch.protocol import Choice
from dynin.virst.config import LossConfig, Sampling, VirstConfig
from dynin.virst.model import FRAMES_AT_ONCE
from dynin.virst.tracker import Propagation

Stage = Literal["warm", "alignment", "few_frame", "propagation"]
Part = Literal["backbone", "fusions", "memory", "recall", "encoder"]
Addition = Literal["points", "details"]
LEARNS: Mapping[Stage, tuple[Part, ...]] = {
    "warm": ("memory", "encoder"),
    "alignment": ("backbone", "fusions"),
    "few_frame": ("backbone", "fusions", "memory"),
    "propagation": ("backbone", "fusions", "memory", "encoder"),
}
"""What learns in each stage: adapters and [ST] embeddings of the backbone; both fusions; mask decoder and memory of the
branch; its image encoder. "recall" is of the memory what no prompted mask depends on: what is remembered of a frame,
and how others look at it. Parity: that the published last stage trains adapters, not the whole language model, is
likely, not known; here it does."""
WORLD = "emoji-world"


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """One source of sentences about videos."""

    dataset: str = WORLD
    """"emoji-world", which is drawn anew, or a dataset of `data.referring.catalogue`."""
    root: str = ""
    """Folder of a dataset."""
    split: str = "train"
    weight: float = 1.0
    """How often a video is drawn from here, relative to the other sources."""
    num_videos: int = 4000
    """Of Emoji World."""
    num_frames: int = NUM_FRAMES
    """Of a video of Emoji World; 1 for stills."""
    side_px: int = SIDE_PX
    """Of a frame of Emoji World."""
    denies_several: bool = False
    """Of Emoji World: whether each video has one more sentence of the family "none", which speaks of several things."""
    families: Mapping[str, float] = field(default_factory=dict)
    """How often a sentence of a family is among those of its video, relative to other families, such as motion = 2; 1
    for those that are not named. Sentences without a family count as the family ""."""

    def __post_init__(self) -> None:
        """ConfigError for weights below 0, a dataset without its folder, or a split that Emoji World has not."""
        if self.dataset == WORLD and self.split not in ("train", "held_out"):
            raise ConfigError(f"setting 'data.split' is {self.split!r}; Emoji World has 'train' and 'held_out'")
        if not self.weight >= 0:
            raise ConfigError(f"setting 'data.weight' is {self.weight}; expected 0 or more")
        for family, weight in self.families.items():
            if not 0 < weight < math.inf:
                raise ConfigError(f"setting 'data.families.{family}' is {weight}; expected a number above 0")
        if (self.dataset == WORLD) == bool(self.root):
            raise ConfigError(
                f"settings 'data.dataset' is {self.dataset!r} and 'data.root' {self.root!r}; a dataset needs its "
                "folder, Emoji World has none"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TextConfig:
    """One source of questions about videos with their answers, by which the backbone keeps its language."""

    dataset: str
    """A set of conversations of `data.referring.instruct`."""
    root: str
    """Its folder."""
    weight: float = 1.0
    """How often a conversation is drawn from here, relative to the other sources."""

    def __post_init__(self) -> None:
        """ConfigError for a weight that draws nothing."""
        if not self.weight > 0:
            raise ConfigError(f"setting 'text.weight' is {self.weight}; expected a number above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class VirstTrainConfig:
    """One stage."""

    name: str
    """The run's folder below `output`."""
    stage: Stage
    steps: int
    model: VirstConfig = field(default_factory=VirstConfig)
    """A new VIRST; with `init`, what of that one's settings shall be others is not asked for here."""
    init: str = ""
    """A VIRST folder to go on from; empty starts a new one by `model`."""
    adds: tuple[Addition, ...] = ()
    """What that VIRST gains first: "points" as by `fusion.has_points`, "details" as by `backbone.reader_details`."""
    learns: tuple[Part, ...] = ()
    """What learns instead of what the stage says; see `LEARNS`."""
    data: Mapping[str, DataConfig] = field(default_factory=lambda: {"world": DataConfig()})
    """Sources by any name: tables [data.NAME]."""
    text: Mapping[str, TextConfig] = field(default_factory=dict)
    """Sources of conversations by any name: tables [text.NAME]."""
    texts_per_step: int = 0
    """Questions of conversations in a step; the backbone learns to answer them, and nothing is segmented."""
    seed: int = 0
    videos_per_step: int = 8
    sentences_per_video: int = 3
    """Most sentences of one video in a step."""
    sampling: Sampling = "jitter"
    """How frames are chosen in training; the model's own setting is for its use."""
    fewest_frames: int = 0
    """The number of frames of a step is drawn from this one to the model's; 0 always takes the model's."""
    num_anchors: int = 3
    """Frames whose masks come from prompts."""
    anchors: Literal["drawn", "first"] = "drawn"
    """Which frames these are: drawn anew for every row, or the first ones of every video."""
    before: int = 2
    """In stages with memory: frames before an anchor that are propagated to."""
    after: int = 5
    """In stages with memory: frames after an anchor that are propagated to."""
    propagation: Propagation = "forward"
    """In which order; "reached" is that of the published training, in which frames do not see later anchors."""
    choice: Choice = "single"
    """Which candidate is the mask, in training as in use."""
    dtype: Literal["float32", "bfloat16", "bfloat16_backbone"] = "float32"
    """Of matrix products; weights and sums stay in float32. With "bfloat16_backbone" those of the backbone alone are in
    bfloat16, as is fastest on processors with such products where the mask branch is small."""
    frames_at_once: int = FRAMES_AT_ONCE
    """How many frames the mask branch encodes at a time; some hundreds on a GPU, where memory allows."""
    backbone_rate: float = 0.3
    """The backbone's learning rate over that of the rest."""
    output: Path = Path("runs/virst")
    log_every: int = 20
    save_every: int = 250
    held_out: Mapping[str, DataConfig] = field(default_factory=dict)
    """Sources that nothing is learned from: tables [held_out.NAME]."""
    held_out_every: int = 0
    """Steps from one look at them to the next, with the averaged weights; 0 never looks."""
    held_out_steps: int = 4
    """A look is at so many steps' videos of each of them, always the same."""
    tensorboard: bool = False
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=1e-3, matrix_rate=0.0, schedule="cosine", weight_decay=0.0, beta2=0.999, average_decay=0.99
        )
    )
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        """ConfigError for counts below what they must be, or nothing to draw from."""
        for name in (
            "steps",
            "videos_per_step",
            "sentences_per_video",
            "num_anchors",
            "frames_at_once",
            "log_every",
            "save_every",
            "held_out_steps",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"setting {name!r} is {getattr(self, name)}; expected at least 1")
        for name in ("before", "after", "fewest_frames", "backbone_rate", "held_out_every"):
            if getattr(self, name) < 0:
                raise ConfigError(f"setting {name!r} is {getattr(self, name)}; expected 0 or more")
        if not any(source.weight > 0 for source in self.data.values()):
            raise ConfigError(f"setting 'data' is {dict(self.data)}: nothing is drawn; give a weight above 0")
        if self.adds and not self.init:
            raise ConfigError(
                f"setting 'adds' is {list(self.adds)} without 'init'; a new VIRST has what 'model' says, so set "
                "'model.fusion.has_points' or 'model.backbone.reader_details' there"
            )
        if bool(self.held_out) != bool(self.held_out_every):
            raise ConfigError(
                f"setting 'held_out_every' is {self.held_out_every} and 'held_out' names "
                f"{sorted(self.held_out) or 'nothing'}; give both, or neither"
            )
        if self.texts_per_step < 0 or bool(self.texts_per_step) != bool(self.text):
            raise ConfigError(
                f"setting 'texts_per_step' is {self.texts_per_step} and 'text' names {sorted(self.text) or 'nothing'}; "
                "give both, or neither"
            )
        if self.text and self.stage == "warm":
            raise ConfigError("setting 'text' is for stages in which the backbone reads; leave it out of 'warm'")
        self.optimizer.require_adamw()
        require_run_name(self.name)

    @property
    def learning(self) -> tuple[Part, ...]:
        """What learns."""
        return self.learns or LEARNS[self.stage]

    @property
    def has_memory(self) -> bool:
        """Whether masks are propagated."""
        return self.stage in ("warm", "propagation")
