"""VIRST: sentences about videos to prompts for every seen frame, and prompts to masks.

Enters: a `Batch`. Leaves: `Prompted`: features, prompts, what the backbone said; and `MaskOutput` of frames. Does not
know files, losses, which frames are anchors, or how a long video is streamed.

    canvases --branch, once a frame--> features --initial fusion--> [ST] embeddings --backbone--> [ST] states
                                          |                                                         |
                                          +--------------------- second fusion <--------------------+
                                          |                           | prompts for every frame
                                          +--> masks of frames <------+      of their own prompts, or by the tracker
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dynin.errors import ConfigError, RequestError
from dynin.virst.backbone.protocol import Backbone, Clips, Reading, Sentences
from dynin.virst.batch import Batch, Sizes
from dynin.virst.branch.protocol import FrameFeatures, MaskBranch, MaskOutput
from dynin.virst.cells import SeenFrames
from dynin.virst.config import VirstConfig
from dynin.virst.fusion import InitialFusion, Prompts, Read, second_of
from dynin.virst.tracker import ClipFeatures, Propagation, Tracker, TrackerConfig, plan, track

FRAMES_AT_ONCE = 8
"""What fits a processor's cache; a GPU wants hundreds."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prompted:
    """What is known of a batch before any mask is made."""

    features: FrameFeatures
    """Of V videos of T frames, video by video; zeros where there is no frame."""
    num_frames: int
    """T."""
    videos: tuple[int, ...]
    """The video of each row."""
    prompts: Prompts
    """Of R rows and T frames."""
    reading: Reading


class Virst(nn.Module):
    """A backbone, two fusions and a mask branch.

    Source:
        VIRST, arXiv:2603.27060. Parity: features of a frame are computed once, where the published code computes them
        up to three times.
    """

    def __init__(self, config: VirstConfig, backbone: Backbone, branch: MaskBranch, *, seed: int) -> None:
        """Put parts together; the fusions are new.

        Args:
            seed: Of the fusions' weights.

        Raises:
            ConfigError: If heads do not split a width.
        """
        super().__init__()
        self.config = config
        self.backbone, self.branch = backbone, branch
        widths = (backbone.width, branch.width)
        self.initial = InitialFusion(*widths, config.fusion) if config.fusion.initial else None
        self.second = second_of(*widths, config.fusion)
        if config.fusion.reads_cells and config.frames.num_seg < config.frames.num_frames:
            raise ConfigError(
                f"setting 'fusion.reads_cells' is on: 'frames.num_seg' {config.frames.num_seg} must not be below "
                f"'frames.num_frames' {config.frames.num_frames}, so that all frames that are read are seen"
            )
        self.is_backbone_halved = False
        """Compute the backbone's matrix products in bfloat16, whatever the rest is computed in."""
        self.frames_at_once = FRAMES_AT_ONCE
        """How many frames of a batch the mask branch encodes at a time."""
        generator = torch.Generator().manual_seed(seed)
        for fusion in (self.initial, self.second):
            if fusion is not None:
                initialise(fusion, generator, gate=config.fusion.gate)

    @property
    def sizes(self) -> Sizes:
        """What batches for this model are made with."""
        config, backbone, branch = self.config, self.backbone, self.branch
        return Sizes.of(backbone.frame_px, branch.image_size, config.frames, config.fusion)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.second.parameters()).device

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Prompted:
        """Everything up to the prompts.

        Args:
            generator: For what training draws: dropout, hidden parts of answers; None outside training.

        Raises:
            RequestError: If a sentence with its frames is too long for the backbone.
        """
        features = self.features(batch)
        seen = SeenFrames(
            features=features.cells.unflatten(0, tuple(batch.is_seen.shape)), is_frame=batch.is_seen, times=batch.times
        )
        prompts, reading = self.prompts(batch.clips, seen, batch.sentences, generator)
        return Prompted(
            features=features,
            num_frames=batch.is_seen.shape[1],
            videos=batch.sentences.videos,
            prompts=prompts,
            reading=reading,
        )

    def features(self, batch: Batch) -> FrameFeatures:
        """The branch's features of every canvas, each computed once; zeros where there is no frame."""
        is_seen = batch.is_seen.flatten()
        found = self.branch.encode(batch.canvases.flatten(0, 1)[is_seen], chunk=self.frames_at_once)
        if bool(is_seen.all()):
            return found

        def spread(values: Float[Tensor, "F C Y X"]) -> Float[Tensor, "VT C Y X"]:
            whole = values.new_zeros(len(is_seen), *values.shape[1:])
            return whole.masked_scatter(is_seen[:, None, None, None], values)

        return FrameFeatures(
            cells=spread(found.cells), position=found.position, fine=tuple(spread(level) for level in found.fine)
        )

    def prompts(
        self, clips: Clips, seen: SeenFrames, sentences: Sentences, generator: torch.Generator | None = None
    ) -> tuple[Prompts, Reading]:
        """Prompts of every seen frame, and what the backbone said; arguments and errors as in `forward`.

        Parity:
            The initial fusion sends no gradient into the features, as in the published code.
        """
        videos = torch.tensor(sentences.videos, device=seen.times.device)
        st = self.backbone.st_embeddings().expand(len(sentences), -1, -1)
        if self.initial is not None:
            still = SeenFrames(features=seen.features.detach(), is_frame=seen.is_frame, times=seen.times)
            st = self.initial(st, still, videos)
        reading = self.read(clips, sentences, st, generator)
        return self.prompts_of(reading, seen, videos, generator), reading

    def prompts_of(
        self, reading: Reading, seen: SeenFrames, videos: Int[Tensor, " R"], generator: torch.Generator | None = None
    ) -> Prompts:
        """Prompts of every seen frame, from what the backbone said; errors as in `cells_of`."""
        states = reading.st_states.to(seen.features.dtype)
        return self.second(states, seen, videos, generator, read=self.cells_of(reading))

    def cells_of(self, reading: Reading) -> Read | None:
        """The backbone's states of the frames, where the second fusion looks at them.

        Raises:
            RequestError: If this backbone has none that know the sentence.
        """
        if not self.config.fusion.reads_cells:
            return None
        if reading.cells is None:
            raise RequestError(
                "setting 'fusion.reads_cells' is on, and this backbone's states of frames do not know the sentence; "
                "turn it off"
            )
        rows, columns = reading.cells.grid
        down = (torch.arange(rows, device=self.device) + 0.5) / rows
        across = (torch.arange(columns, device=self.device) + 0.5) / columns
        middles = torch.stack((across.repeat(rows), down.repeat_interleave(columns)), dim=-1)
        return Read(cells=reading.cells, middles=middles, place=self.branch.place)

    def prepared(self, clips: Clips) -> Clips:
        """The same, with what the backbone makes of the frames alone, so that `read` need not; errors as there."""
        with self._halved():
            return replace(clips, prepared=tuple(self.backbone.prepare(clips)))

    def read(
        self,
        clips: Clips,
        sentences: Sentences,
        st_embeddings: Float[Tensor, "R N D"],
        generator: torch.Generator | None = None,
    ) -> Reading:
        """One pass of the backbone; see `backbone.protocol.Backbone.read`."""
        with self._halved():
            return self.backbone.read(clips, sentences, st_embeddings, generator)

    def _halved(self) -> AbstractContextManager[object]:
        """In which the backbone works; see `is_backbone_halved`."""
        if self.is_backbone_halved:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    # ---- masks ------------------------------------------------------------------------------------------------------

    def own_masks(self, found: Prompted, pairs: Sequence[tuple[int, int]], tracker: TrackerConfig) -> MaskOutput:
        """Masks of (row, frame) pairs, each from its own prompts alone; one row of the output for each pair."""
        rows, frames = (torch.tensor(each, device=self.device) for each in zip(*pairs, strict=True))
        places = self._places(found, rows, frames)
        return Tracker(self.branch, tracker).prompt(found.features.take(places), found.prompts.tokens[rows, :, frames])

    def presence(self, features: FrameFeatures, prompts: Float[Tensor, "F M C"], tracker: TrackerConfig) -> float:
        """The probability that the target is visible, in the mean over frames, each by its own prompts.

        Args:
            features: Of F frames.
            prompts: M of each frame.
        """
        return float(Tracker(self.branch, tracker).prompt(features, prompts).object_score.sigmoid().mean())

    def tracked(
        self,
        found: Prompted,
        rows: Sequence[int],
        anchors: Sequence[int],
        frames: Sequence[int],
        tracker: TrackerConfig,
        propagation: Propagation = "forward",
    ) -> Iterator[tuple[int, MaskOutput]]:
        """Masks of frames of some rows, of anchors from their prompts and of the others from memory, in tracking order.

        Args:
            rows: They have all of the frames.
            anchors: Which of the frames are prompted.
            frames: By their place among the seen frames, ascending.
        """
        videos = tuple(found.videos[row] for row in rows)
        features = ClipFeatures(features=found.features, num_frames=found.num_frames, videos=videos)
        prompts = {anchor: found.prompts.tokens[list(rows), :, anchor] for anchor in anchors}
        return track(Tracker(self.branch, tracker), plan(frames, anchors, propagation), features, prompts)

    def _places(self, found: Prompted, rows: Int[Tensor, " P"], frames: Int[Tensor, " P"]) -> Int[Tensor, " P"]:
        """Where the features of pairs lie."""
        videos = torch.tensor(found.videos, device=self.device)
        return videos[rows] * found.num_frames + frames


@torch.no_grad()
def initialise(fusion: nn.Module, generator: torch.Generator, *, gate: float) -> None:
    """Draw a fusion's weights.

    | tensor                      | values                          |
    | --------------------------- | ------------------------------- |
    | matrices and kernels        | uniform, within 1 / sqrt(inputs) |
    | learned vectors of places   | normal of deviation 0.02        |
    | norms                       | 1                               |
    | biases                      | 0                               |
    | gates                       | as the config says              |
    | offsets within patches      | 0                               |
    """
    for name, value in fusion.named_parameters():
        if name == "gate":
            value.fill_(gate)
        elif name == "points.offset.2.weight":
            value.zero_()
        elif "embed" in name:
            value.normal_(std=0.02, generator=generator)
        elif value.ndim > 1:
            bound = float(value[0].numel()) ** -0.5
            value.uniform_(-bound, bound, generator=generator)
        else:
            value.fill_(float("norm" in name and name.endswith("weight")))
