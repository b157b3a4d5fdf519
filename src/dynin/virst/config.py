"""What a VIRST is made of, as values: which frames are seen, how [ST] tokens and pictures are brought together.

Enters: values read by `dynin.config`. Leaves: frozen, checked settings. Does not know tensors. Widths of the backbone
and of the mask branch are not settings: the parts say them, and the fusions are built to fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dynin.errors import ConfigError
from dynin.training.config import LoraConfig

Sampling = Literal["centres", "jitter"]
SecondKind = Literal["fusion", "linear", "mlp"]
Positions = Literal["rotary", "learned", "none"]
READER_STEP = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameConfig:
    """Which frames of a video are seen, and in what form; see `virst.frames`.

    Parity:
        The published evaluation is `PUBLISHED_FRAMES`: frames and their subset are drawn at random, and squeezed to
        squares.
    """

    num_frames: int = 12
    """Most frames that the backbone sees; of a longer video, one from each of so many equal parts."""
    least: int = 1
    """Fewest frames that the backbone sees; of a shorter video, the last one is repeated."""
    multiple: int = 1
    """The number of frames that the backbone sees is a multiple of this, as it is for encoders of clips of 4 frames."""
    num_seg: int = 12
    """Of these frames, the most that the mask branch's features are fused from."""
    sampling: Sampling = "centres"
    """The middle of each part, or a frame drawn from it."""
    keeps_aspect: bool = True
    """Pad frames to squares; otherwise squeeze them."""

    def __post_init__(self) -> None:
        """ConfigError for numbers that cannot be met together."""
        for name in ("num_frames", "least", "multiple", "num_seg"):
            if getattr(self, name) < 1:
                raise ConfigError(f"setting 'frames.{name}' is {getattr(self, name)}; expected at least 1")
        for name in ("num_frames", "least"):
            if getattr(self, name) % self.multiple:
                raise ConfigError(
                    f"setting 'frames.{name}' is {getattr(self, name)}; expected a multiple of {self.multiple}, which "
                    "is 'frames.multiple'"
                )
        if self.least > self.num_frames:
            raise ConfigError(
                f"setting 'frames.least' is {self.least}, more than 'frames.num_frames' {self.num_frames}"
            )


PUBLISHED_FRAMES = FrameConfig(num_frames=64, least=8, multiple=4, num_seg=32, sampling="jitter", keeps_aspect=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class FusionConfig:
    """The two fusions; see `virst.fusion`. The defaults are the published sizes, except that the first one is on."""

    initial: bool = True
    """Whether features change the [ST] embeddings before the backbone reads them.

    Parity: the published switch is off by default, and no published script turns it on."""
    second: SecondKind = "fusion"
    """What makes prompts of frames from [ST] states: the second fusion; one linear map for all frames; or a
    feed-forward network with as many numbers as the fusion, for all frames."""
    num_downs: int = 3
    """Convolutions of stride 2 before the fusions; a map of 64 x 64 becomes 8 x 8 cells by three."""
    initial_heads: int = 8
    gate: float = 0.1
    """How much of the first fusion is added at the start of a training."""
    layers: int = 2
    heads: int = 8
    ff_factor: int = 4
    """Width of the feed-forward part over the width of the features."""
    dropout: float = 0.1
    positions: Positions = "rotary"
    """How the second fusion tells when and where: angles by time, row and column; learned vectors; or nothing."""
    reads_cells: bool = False
    """Whether the second fusion also looks at the backbone's own states of the frames. A backbone in which everything
    sees everything has read the sentence there too; in the published one, which is causal, it has not."""
    has_points: bool = False
    """Whether each patch of the backbone is a prompt of its own besides, as a point is that one sets on a picture, see
    `virst.points`. Needs `reads_cells`; not published."""
    time_unit: Literal["frames", "seconds"] = "frames"
    """What time is counted in: places in the list of frames, as published, or real time."""
    theta: float = 10_000.0
    """Base of the angles' frequencies."""
    max_frames: int = 64
    """With learned positions: most frames."""
    max_cells: int = 8
    """With learned positions: most rows and columns of cells."""

    def __post_init__(self) -> None:
        """ConfigError for counts below what they must be."""
        for name in ("initial_heads", "layers", "heads", "ff_factor", "max_frames", "max_cells"):
            if getattr(self, name) < 1:
                raise ConfigError(f"setting 'fusion.{name}' is {getattr(self, name)}; expected at least 1")
        if self.num_downs < 0:
            raise ConfigError(f"setting 'fusion.num_downs' is {self.num_downs}; expected 0 or more")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"setting 'fusion.dropout' is {self.dropout}; expected 0 to below 1")
        if self.has_points and not (self.reads_cells and self.second == "fusion"):
            raise ConfigError(
                f"setting 'fusion.has_points' is on, 'fusion.reads_cells' {'on' if self.reads_cells else 'off'} and "
                f"'fusion.second' {self.second!r}: it is the second fusion that finds points, where it reads cells"
            )
        if not self.theta > 1:
            raise ConfigError(f"setting 'fusion.theta' is {self.theta}; expected a number above 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneConfig:
    """The video-language model."""

    kind: Literal["dynin", "videochat"] = "dynin"
    start: str = ""
    """The model that it starts from, a folder or hub id; empty takes the one that ships with the code."""
    frame_px: int = 0
    """Side of the frames that it sees; 0 takes that of the start."""
    network: Mapping[str, int] = field(default_factory=dict)
    """Sizes of a network with random weights that takes the start's place, such as num_layers = 2, and learns as a
    whole; for tests alone. Ids and tokenizers stay the start's."""
    lora: LoraConfig = field(default_factory=lambda: LoraConfig(rank=16, alpha=16.0))
    """What learns beside the frozen matrices of the start; rank 0 for nothing."""
    reader_width: int = 0
    """Width of the network that reads frames for the masked-diffusion backbone, see `backbone.reader`; 0 leaves them to
    the start's picture tokenizer."""
    reader_start: str = ""
    """A folder that `dynin virst train-reader` wrote, from which a new VIRST takes the weights of that network."""
    reader_details: bool = False
    """Whether what that network saw is added to the codes' embeddings, by a matrix that starts at 0: a code says what
    lies at a patch, not where within it."""
    learned_start: str = ""
    """A VIRST from which a new one takes all that its backbone learned (adapters, [ST] embeddings, reader); fusions are
    new all the same."""

    def __post_init__(self) -> None:
        """ConfigError for numbers below what they must be, or two ways to learn."""
        if self.lora.rank < 0:
            raise ConfigError(f"setting 'backbone.lora.rank' is {self.lora.rank}; expected 0 (no adapters) or more")
        if self.frame_px < 0:
            raise ConfigError(f"setting 'backbone.frame_px' is {self.frame_px}; expected 0 (the start's) or more")
        if self.reader_width < 0 or self.reader_width % READER_STEP:
            raise ConfigError(
                f"setting 'backbone.reader_width' is {self.reader_width}; expected a multiple of {READER_STEP}, or 0"
            )
        if self.reader_details and not self.reader_width:
            raise ConfigError("setting 'backbone.reader_details' is on without 'backbone.reader_width'; give both")
        if self.reader_start and not self.reader_width:
            raise ConfigError("setting 'backbone.reader_start' is given without 'backbone.reader_width'; give both")
        if self.reader_start and self.learned_start:
            raise ConfigError(
                "settings 'backbone.reader_start' and 'backbone.learned_start' are both given; the second brings a "
                "reader with it, so leave out the first"
            )
        if self.network and self.lora.rank:
            raise ConfigError("settings 'backbone.network' and 'backbone.lora.rank' are both given; one of them learns")


@dataclass(frozen=True, kw_only=True, slots=True)
class BranchConfig:
    """The mask branch: a new one of the SAM2 family, see `virst.branch.build.small_config`; or one with weights."""

    image_px: int = 64
    """Side of its frames in pixels."""
    width: int = 64
    """Of prompts and cells."""
    hiera_width: int = 24
    num_layers: int = 2
    patch_px: int = 2
    """Mask logits are so much coarser than its frames."""
    start: str = ""
    """A folder of published weights, or a VIRST whose mask branch is taken, with its sizes; empty for a new one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """What a training minimises; see `virst.losses`. The weights are those of the paper."""

    bce: float = 1.0
    dice: float = 1.0
    iou: float = 0.05
    occlusion: float = 0.05
    token: float = 1.0
    cells: float = 0.0
    """Of telling, at each of the backbone's states of the frames, whether it is of what is meant; not published."""
    places: float = 0.0
    """Of telling where in a patch the middle of what is meant lies, in sides of the frame, for `fusion.has_points`."""
    gate: Literal["soft", "hard"] = "soft"
    """How an object score acts on the mask that is compared: as a probability, or as a threshold below which every
    logit is -1024, which leaves the mask without a gradient (published)."""
    is_iou_twice: bool = False
    """Add the IoU part twice, as the published code does."""

    def __post_init__(self) -> None:
        """ConfigError for a weight below 0."""
        for name in ("bce", "dice", "iou", "occlusion", "token", "cells", "places"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"setting 'loss.{name}' is {getattr(self, name)}; expected 0 or more")


PUBLISHED_LOSS = LossConfig(gate="hard", is_iou_twice=True)
"""What the published scripts minimise; the code's own defaults are bce = 2 and dice = 0.5."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VirstConfig:
    """One VIRST."""

    num_st: int = 10
    """[ST] tokens of a sentence, each of which becomes one prompt of every frame."""
    has_distinct_st: bool = True
    """Whether each [ST] token has an embedding of its own.

    Parity: the published model has one for all, told apart by the digits between them and by their order."""
    least_presence: float = 0.0
    """A sentence is about nothing where the probability of being visible, by the seen frames' own prompts and in their
    mean, is lower than this; 0 leaves it to each frame."""
    frames: FrameConfig = field(default_factory=FrameConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    branch: BranchConfig = field(default_factory=BranchConfig)

    def __post_init__(self) -> None:
        """ConfigError without an [ST] token, or for what is no probability."""
        if not 0 <= self.least_presence <= 1:
            raise ConfigError(f"setting 'least_presence' is {self.least_presence}; expected a probability from 0 to 1")
        if self.num_st < 1:
            raise ConfigError(f"setting 'num_st' is {self.num_st}; expected at least 1")
