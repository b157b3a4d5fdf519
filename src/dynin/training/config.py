"""What a training run is: one TOML file.

Enters: values read by `dynin.config`. Leaves: frozen, checked settings. Does not know tensors.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dynin.config import AT_LEAST_ONE, AT_LEAST_ZERO, SHARE, require_ranges, require_run_name
from dynin.data.emoji_world.problem import COUNTING_SHARE
from dynin.data.records.sources import SourceConfig
from dynin.data.variants import DRAWN
from dynin.errors import ConfigError
from dynin.training.objective import ObjectiveConfig

LINEAR_DECAY_SHARE = 0.5
NewRows = Literal["mean", "normal"]
_AT = "optimizer."


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """Rates rise during the warm-up and fall to `final_fraction` of the peak at the end; see `optim.share_of_peak`."""

    learning_rate: float = 2e-3
    """Peak rate of AdamW."""
    matrix_rate: float = 2e-3
    """Peak rate of Muon, on the matrices inside the blocks; 0 leaves them to AdamW."""
    warmup_steps: int = 100
    schedule: Literal["linear", "cosine"] = "linear"
    """After the warm-up: level, then a straight fall during `decay_share`; or half a cosine over all that is left."""
    decay_share: float = LINEAR_DECAY_SHARE
    """Share of all steps, the last ones, during which rates fall in a straight line."""
    final_fraction: float = 0.02
    weight_decay: float = 0.05
    beta1: float = 0.9
    """Of AdamW, as `beta2` and `eps`."""
    beta2: float = 0.98
    eps: float = 1e-8
    max_grad_norm: float = 1.0
    average_decay: float = 0.998
    """Decay per step of the running average of the weights; the average is what is saved as the model."""
    state_bits: int = 32
    """Of each number that AdamW remembers: 32, or 8 by the package torchao, in one process. Muon's stay in float32."""

    def __post_init__(self) -> None:
        """ConfigError for numbers that AdamW cannot use, another number of bits, or settings that contradict."""
        require_ranges(
            self, dict.fromkeys(("learning_rate", "matrix_rate", "warmup_steps", "weight_decay"), AT_LEAST_ZERO), _AT
        )
        require_ranges(self, dict.fromkeys(("decay_share", "final_fraction"), SHARE), _AT)
        for name in ("beta1", "beta2", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"setting 'optimizer.{name}' is {getattr(self, name)}; expected 0 to below 1")
        for name in ("eps", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"setting 'optimizer.{name}' is {getattr(self, name)}; expected a number above 0")
        if self.schedule == "cosine" and self.decay_share != LINEAR_DECAY_SHARE:
            raise ConfigError(
                f"setting 'optimizer.decay_share' is {self.decay_share}, and a cosine falls from the warm-up on; leave "
                "one of 'schedule' and 'decay_share' out"
            )
        if self.state_bits not in (8, 32):
            raise ConfigError(f"setting 'optimizer.state_bits' is {self.state_bits}; expected 32 or 8")

    def require_adamw(self) -> None:
        """ConfigError where Muon is asked for: for trainings of networks without the blocks that it is for."""
        if self.matrix_rate:
            raise ConfigError(
                f"setting 'optimizer.matrix_rate' is {self.matrix_rate}: this network has no blocks that Muon trains; "
                "set it to 0"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    """Low-rank adapters beside the matrices of the blocks; the network itself stays as it is."""

    rank: int = 0
    """0 trains the network instead."""
    alpha: float = 16.0
    """Adapters count alpha / rank."""
    targets: tuple[str, ...] = ("query", "key", "value", "output", "gate", "up", "down")
    """Matrices of each layer that get one; "output" is that of the attention."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One run."""

    name: str
    """The run's folder below `runs/`."""
    steps: int
    tasks: Mapping[str, float] = field(default_factory=dict)
    """How often each task of Emoji World, or part of one (`data.variants`), is drawn; weights need not sum to one. None
    leaves that world out."""
    data: Mapping[str, SourceConfig] = field(default_factory=dict)
    """One's own data: tables `[data.NAME]` with path and weight; see docs/data.md."""
    world_weight: float = 1.0
    """How often Emoji World is drawn from, beside one's own data."""
    seed: int = 0
    rows_per_step: int = 128
    """Rows of a step, their tasks drawn by weight."""
    tokens_per_batch: int = 1024
    """Positions that pass through the network at once, padding included; a step adds up its batches."""
    pack_length: int = 0
    """Places of a sequence into which several rows go, each seeing itself alone; 0 pads rows of like length instead."""
    workers: int = 0
    """Processes that make rows beside the training; 0 makes them in a thread, which is enough for a CPU."""
    dtype: str = "float32"
    """Of matrix products: "float32" or "bfloat16"; weights, sums and norms stay in float32 either way."""
    compile: bool = False
    """Compile the blocks with `torch.compile`; needs a C++ compiler, and some seconds for each length of rows."""
    dynamic_shapes: bool = False
    """Compile once for batches of any shape: a quicker start for few, large batches; else once for each shape."""
    recompute: bool = False
    """Make the inner values of blocks again on the way back instead of keeping them: less memory, a third more work."""
    reshard: bool = False
    """With several processes: give up the whole weights of a block after each use; otherwise once a step."""
    weights: str = ""
    """int8 or int4: the matrices of the network in fewer bits, beside adapters that learn."""
    frozen: tuple[str, ...] = ()
    """Parts of the network that stay as they are, such as "text" and "image"; see `training.freeze`."""
    network: Mapping[str, int] = field(default_factory=dict)
    """Sizes of a new network that differ from the embedded model's, such as num_layers = 4."""
    init: str = ""
    """A model to start from, in any layout: a folder, a hub id, or a TOML file that names the parts. Its weights, ids,
    tasks and tokenizers, a fresh optimizer. Empty starts from random weights."""
    layout: Literal["", "published"] = ""
    """The layout of ids in which a model of another one goes on: "published" gives LLaDA and MMaDA rows for speech (and
    pictures), as Dynin-Omni has them. Empty keeps the model's."""
    text_len: int = 0
    """With `layout`: where image codes begin from now on; rows move with their codes. 0 leaves them where they are."""
    new_rows: NewRows = "mean"
    """How rows start that the model did not have: "mean", nearly the mean of the old ones, as in the published
    training; or "normal", small numbers drawn one by one."""
    lengths: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Lengths of a task that differ from its row of the table: [lengths.t2s] prompt = 129, speech = 256; and given_px,
    the side of given pictures and frames."""
    num_frames: int = 0
    """Frames of a video; 0 takes the model's number."""
    tokenizers: str = ""
    """A model folder whose tokenizers are taken while the weights are new; empty takes the codecs named below."""
    own_text: bool = False
    """Of those tokenizers, learn that of text anew from sentences of the run's world."""
    speech_shard: str = ""
    """Pre-tokenized speech (see `dynin data speech`); needed by tasks that hear or speak."""
    long_speech_shard: str = ""
    """The same with sounds of twice the length; needed by the drawn names that end in "_long"."""
    image_tokenizer: Path = Path("runs/codecs/image")
    speech_tokenizer: Path = Path("runs/codecs/speech")
    output: Path = Path("runs")
    log_every: int = 20
    save_every: int = 250
    preview_every: int = 0
    """Steps after which a picture, a sentence and a sound are made with the averaged weights; 0 makes none."""
    tensorboard: bool = False
    """Write curves that TensorBoard shows, beside log.jsonl."""
    curriculum_steps: int = 0
    """Pictures hold one object only at first, and up to three from this step on."""
    counting_share: float = COUNTING_SHARE
    """Of the problems in text, how many count."""
    drop_prob: float = 0.1
    """Share of rows whose condition is emptied, for classifier-free guidance."""
    whole_prob: float = 0.5
    """Share of rows with all of a text or sound. The others end with one block of it, as the decoder will see them:
    everything before is there, nothing after."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    def __post_init__(self) -> None:
        """Check names and numbers."""
        unknown = sorted(set(self.tasks) - set(DRAWN))
        if unknown or not (self.tasks or self.data):
            raise ConfigError(f"setting 'tasks' names {unknown or 'nothing'}; known: {', '.join(DRAWN)}")
        if self.tasks and not any(weight > 0 for weight in self.tasks.values()):
            raise ConfigError(f"setting 'tasks' is {dict(self.tasks)}: nothing is drawn; give a weight above 0")
        require_run_name(self.name)
        counted = ("steps", "rows_per_step", "tokens_per_batch", "log_every", "save_every")
        require_ranges(self, dict.fromkeys(counted, AT_LEAST_ONE))
        require_ranges(
            self, dict.fromkeys(("tasks", "world_weight", "seed", "curriculum_steps", "preview_every"), AT_LEAST_ZERO)
        )
        require_ranges(self, dict.fromkeys(("counting_share", "drop_prob", "whole_prob"), SHARE))
        if self.workers < 0:
            raise ConfigError(f"setting 'workers' is {self.workers}; expected 0 (a thread) or more")
        if self.pack_length < 0:
            raise ConfigError(f"setting 'pack_length' is {self.pack_length}; expected 0 (no packing) or more")
        if self.dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"setting 'dtype' is {self.dtype!r}; expected float32 or bfloat16")
        for name in ("text_len", "num_frames"):
            if getattr(self, name) < 0:
                raise ConfigError(f"setting {name!r} is {getattr(self, name)}; expected 0 (the model's) or more")
        if self.num_frames and self.tasks:
            raise ConfigError("setting 'num_frames' is of one's own data; the videos of Emoji World have 4 frames")
        if self.layout and not self.init:
            raise ConfigError(f"setting 'layout' is {self.layout!r}: a model takes it on; set 'init' to one")
        if self.text_len and not self.layout:
            raise ConfigError(f"setting 'text_len' is {self.text_len}, which moves rows of a 'layout'; set that too")
        if self.lora.rank < 0:
            raise ConfigError(f"setting 'lora.rank' is {self.lora.rank}; expected 0 (no adapters) or more")
        if not 0 < self.lora.alpha < math.inf:
            raise ConfigError(f"setting 'lora.alpha' is {self.lora.alpha}; expected a number above 0")
        if self.weights and not self.lora.rank:
            raise ConfigError(f"setting 'weights' is {self.weights!r}, which cannot learn; set lora.rank too")
        if self.lora.rank and self.frozen:
            raise ConfigError(
                "settings 'lora.rank' and 'frozen' are both given; adapters freeze the rest by themselves"
            )
        if (self.weights or self.lora.rank or self.frozen) and not self.init:
            raise ConfigError("what is frozen comes from a model; set 'init' to a model folder or hub id")
        if self.own_text and self.init:
            raise ConfigError(
                "settings 'own_text' and 'init' are both given; the weights of 'init' know its text alone"
            )
        if self.network and self.init:
            raise ConfigError("settings 'network' and 'init' are both given; the sizes come from the model")
