"""A video and a sentence to masks, frame by frame, with memory that does not grow with the video.

Enters: a `Virst`, a video whose frames can be gone through twice, a sentence. Leaves: `FrameMask` of every frame, in
time order. Does not know files, or how prompts are made.

    first pass     a few frames, as many as the backbone sees      -> prompts, features of the frames that have them
                   anchors chosen before any mask (a policy)       -> their masks and memories
    second pass    every frame, `chunk` of them encoded at a time  -> mask by the tracker, or by the updater
                   (decoded anew unless all frames of the first pass were kept: `virst.twice`)

Held at a time: the seen frames at the sizes of the networks, their features, the tracker's memories, a little room of
the first pass's frames, three chunks: one whose masks are made, and up to two that a thread reads and encodes
meanwhile. A frame that has a prompt is encoded in the first pass and not again.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dynin.ahead import ahead
from dynin.data.referring.example import ReferringExample
from dynin.errors import MediaError, RequestError
from dynin.media.image import from_levels
from dynin.media.stream import Frame
from dynin.virst.anchors import AnchorPolicy, Candidates, Dynamic, Oracle, TextSimilarity
from dynin.virst.backbone.protocol import Clips, Sentences
from dynin.virst.branch.protocol import FrameFeatures, MaskOutput
from dynin.virst.cells import SeenFrames
from dynin.virst.frames import Fit, choose, choose_seg, times_of
from dynin.virst.model import Virst
from dynin.virst.outputs import FrameMask
from dynin.virst.tracker import Tracker, TrackerConfig
from dynin.virst.twice import Twice
from dynin.virst.updater import Updater

Told = Callable[[int, int], None]
"""Called with the number of frames that have a mask, and of all."""


@runtime_checkable
class Video(Protocol):
    """Frames that can be gone through from the first to the last, any number of times."""

    @property
    def num_frames(self) -> int:
        """How many there are."""
        ...

    @property
    def height(self) -> int:
        """Rows in pixels."""
        ...

    @property
    def width(self) -> int:
        """Columns in pixels."""
        ...

    @property
    def rate_hz(self) -> float | None:
        """Frames per second in the mean, where known."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """The frames with their times."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentConfig:
    """How a video is gone through."""

    anchors: AnchorPolicy | Dynamic = field(default_factory=Dynamic)
    """Which frames are prompted, and how many."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    """What a frame looks at; `num_attended` is how many anchors."""
    chunk: int = 8
    """Frames encoded at a time."""
    threshold: float = 0.5
    """Probability of being visible above which an object is: a calibrated one says better when there is no target."""
    least_presence: float | None = None
    """As `VirstConfig.least_presence`; None for what the model says."""
    overlaps: bool | None = None
    """Read and encode frames in a thread while masks are made. None where the thread has cores: torch on a GPU, or with
    at most half as many threads as there are cores. Masks are the same."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Looked:
    """What the first pass has seen."""

    clips: Float[Tensor, "T 3 y x"]
    """For the backbone."""
    canvases: Float[Tensor, "F 3 Y X"]
    """For the mask branch; each frame once."""
    chosen: tuple[int, ...]
    """Those of `clips`."""
    seen: tuple[int, ...]
    """Those of the fusions; some may repeat."""
    times: tuple[float, ...]
    """Of these."""

    @property
    def own(self) -> tuple[int, ...]:
        """Those of the fusions, each once."""
        return tuple(dict.fromkeys(self.seen))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Seen:
    """What is known before any mask."""

    frames: tuple[int, ...]
    """Those that have prompts, each once."""
    features: FrameFeatures
    """Of these."""
    tokens: Float[Tensor, "N T D"]
    """Their prompts."""
    is_there: bool
    """Whether the sentence is about something."""
    likeness: tuple[float, ...] | None
    areas: tuple[float, ...] | None

    def features_of(self, frame: int) -> FrameFeatures:
        """Of one of the frames, as a batch of one."""
        return self.features.take([self.frames.index(frame)])

    def prompts(self) -> dict[int, Float[Tensor, "1 N D"]]:
        """By frame."""
        return {frame: self.tokens[None, :, at] for at, frame in enumerate(self.frames)}


class Segmenter:
    """Finds what a sentence means in videos, one after another."""

    def __init__(
        self,
        model: Virst,
        config: SegmentConfig = SegmentConfig(),  # noqa: B008 - frozen
        *,
        likeness: Callable[[Sequence[Tensor], str], tuple[float, ...]] | None = None,
        seed: int = 0,
    ) -> None:
        """`likeness` compares frames with the sentence, for anchors by text similarity; see `virst.similarity`."""
        self.model = model
        self.config = config
        self.likeness = likeness
        self.seed = seed

    def predict(self, example: ReferringExample) -> Iterator[Bool[np.ndarray, "Y X"]]:
        """Masks of an example of a dataset, in time order; what evaluation asks for."""
        areas = None
        if isinstance(self.config.anchors, Oracle):
            areas = _areas_of(example)
        for found in self.segment(ExampleVideo(example), example.sentence, areas=areas):
            yield found.mask

    @torch.no_grad()
    def segment(
        self,
        video: Video,
        sentence: str,
        *,
        progress: Told = lambda done, total: None,
        areas: Callable[[Sequence[int]], tuple[float, ...]] | None = None,
    ) -> Iterator[FrameMask]:
        """A mask for every frame.

        Args:
            areas: How much of the true target frames show; only `Oracle` asks.

        Raises:
            RequestError: If the sentence is empty or too long, or the policy lacks something.
            MediaError: If the video has no frame, or ends early.
        """
        if not sentence.strip():
            raise RequestError("the sentence is empty; say in words what is to be found in the video")
        if video.num_frames < 1:
            raise MediaError("the video holds no frame, expected at least one; give another")
        generator = torch.Generator().manual_seed(self.seed)
        fit = self._fit(video, self.model.branch.image_size)
        held: dict[int, Frame] = {}
        twice = Twice(video)
        looked = self._look(video, twice, fit, generator)
        stream = self._features(twice, looked, fit, held)
        if self._overlaps():
            stream = ahead(stream)
        seen = self._ask(looked, stream, sentence, areas)
        frames = (
            (index, seen.features_of(index) if features is None else features)
            for chunk in stream
            for index, features in chunk
        )
        done = 0
        for index, output in self._masks(seen, frames, generator):
            yield self._lifted(index, held.pop(index), output, fit, seen.is_there)
            done += 1
            progress(done, video.num_frames)
        if done != video.num_frames:
            raise MediaError(f"the video ended after {done} of {video.num_frames} frames; save or download it again")

    # ---- first pass ------------------------------------------------------------------------------------------------

    def _look(self, video: Video, twice: Twice, fit: Fit, generator: torch.Generator) -> _Looked:
        """The frames that the backbone and the fusions see."""
        model, frames = self.model, self.model.config.frames
        chosen = choose(video.num_frames, frames, generator)
        seen = [chosen[place] for place in choose_seg(len(chosen), frames, generator)]
        small = self._fit(video, (model.backbone.frame_px, model.backbone.frame_px))
        clips: dict[int, Tensor] = {}
        canvases: dict[int, Tensor] = {}
        for index, frame in enumerate(twice.first(max(chosen) + 1)):
            if index in chosen:
                pixels = from_levels(frame.levels)[None]
                clips[index], canvases[index] = small.place(pixels)[0], fit.place(pixels)[0]
        if len(clips) != len(set(chosen)):
            raise MediaError(f"the video ended before frame {max(chosen)}; save or download it again")
        rate_hz = video.rate_hz if model.config.fusion.time_unit == "seconds" else None
        own = tuple(dict.fromkeys(seen))
        return _Looked(
            clips=torch.stack([clips[index] for index in chosen]).to(model.device),
            canvases=torch.stack([canvases[index] for index in own]).to(model.device),
            chosen=tuple(chosen),
            seen=tuple(seen),
            times=tuple(times_of(seen, rate_hz)),
        )

    def _ask(
        self,
        looked: _Looked,
        stream: Iterator[list[tuple[int, FrameFeatures | None]]],
        sentence: str,
        areas: Callable[[Sequence[int]], tuple[float, ...]] | None,
    ) -> _Seen:
        """Prompts of the frames that are seen. Until their features are there, the backbone does what it can."""
        model, own = self.model, looked.own
        device = model.device
        clips = Clips(
            frames=looked.clips[None], is_frame=torch.ones(1, len(looked.chosen), dtype=torch.bool, device=device)
        )
        sentences, videos = Sentences(texts=(sentence,), videos=(0,)), torch.zeros(1, dtype=torch.long, device=device)
        reading = None
        if model.initial is None:
            reading = model.read(clips, sentences, model.backbone.st_embeddings()[None])
        else:
            clips = model.prepared(clips)  # while the thread encodes
        features = next(stream)[0][1]
        assert features is not None
        seen = SeenFrames(
            features=features.cells[[own.index(index) for index in looked.seen]][None],
            is_frame=torch.ones(1, len(looked.seen), dtype=torch.bool, device=device),
            times=torch.tensor([looked.times], device=device),
        )
        if reading is None:
            prompts, _ = model.prompts(clips, seen, sentences)
        else:
            prompts = model.prompts_of(reading, seen, videos)
        likeness = None
        if isinstance(self.config.anchors, TextSimilarity) and self.likeness is not None:
            likeness = self.likeness([looked.clips[looked.chosen.index(index)] for index in own], sentence)
        tokens = prompts.tokens[0][:, [looked.seen.index(index) for index in own]]
        least = model.config.least_presence if self.config.least_presence is None else self.config.least_presence
        return _Seen(
            frames=own,
            features=features,
            tokens=tokens,
            is_there=not least or model.presence(features, tokens.transpose(0, 1), self.config.tracker) >= least,
            likeness=likeness,
            areas=None if areas is None else areas(own),
        )

    # ---- second pass -----------------------------------------------------------------------------------------------

    @torch.no_grad()  # the thread that comes here has a setting of its own
    def _features(
        self, twice: Twice, looked: _Looked, fit: Fit, held: dict[int, Frame]
    ) -> Iterator[list[tuple[int, FrameFeatures | None]]]:
        """Features of the frames that are seen; then of one chunk after another, with None for a frame that was seen.

        The frames of a chunk stay in `held` until they are taken out.
        """
        own = looked.own
        yield [(-1, self.model.branch.encode(looked.canvases, chunk=self.config.chunk))]
        chunk: list[int] = []
        new: list[int] = []
        for index, frame in enumerate(twice.whole()):
            held[index] = frame
            chunk.append(index)
            if index not in own:
                new.append(index)
            if len(new) == self.config.chunk or len(chunk) == 2 * self.config.chunk:
                yield self._encoded(chunk, new, fit, held)
                chunk, new = [], []
        yield self._encoded(chunk, new, fit, held)

    def _encoded(
        self, chunk: list[int], new: list[int], fit: Fit, held: dict[int, Frame]
    ) -> list[tuple[int, FrameFeatures | None]]:
        if new:
            pixels = torch.cat([fit.place(from_levels(held[index].levels)[None]) for index in new])
            found = self.model.branch.encode(pixels.to(self.model.device), chunk=self.config.chunk)
        places = {index: at for at, index in enumerate(new)}
        return [(index, found.take([places[index]]) if index in places else None) for index in chunk]

    def _masks(
        self, seen: _Seen, frames: Iterable[tuple[int, FrameFeatures]], generator: torch.Generator
    ) -> Iterator[tuple[int, MaskOutput]]:
        """By the updater, or by the tracker with anchors that a policy chose."""
        tracker = Tracker(self.model.branch, replace(self.config.tracker, gate="hard"))
        if isinstance(self.config.anchors, Dynamic):
            yield from Updater(self.config.anchors, tracker, seen.prompts(), seen.features_of).run(frames)
            return
        candidates = Candidates(frames=seen.frames, likeness=seen.likeness, areas=seen.areas)
        prompts = seen.prompts()
        outputs: dict[int, MaskOutput] = {}
        for anchor in self.config.anchors.choose(candidates, generator):
            features = seen.features_of(anchor)
            outputs[anchor] = tracker.prompt(features, prompts[anchor])
            tracker.admit(anchor, features, outputs[anchor])
        for frame, features in frames:
            if frame in outputs:
                yield frame, outputs[frame]
            else:
                output = tracker.propagate(frame, features)
                tracker.keep(frame, features, output)
                yield frame, output
            tracker.forget(frame + 1)

    def _lifted(self, index: int, frame: Frame, output: MaskOutput, fit: Fit, is_there: bool) -> FrameMask:
        probability = float(output.object_score.sigmoid())
        mask = np.zeros((fit.height, fit.width), dtype=bool)
        if is_there and probability > self.config.threshold:
            mask = (fit.lift(output.mask_logits)[0] > 0).cpu().numpy()
        return FrameMask(
            index=index,
            time_s=frame.time_s,
            levels=frame.levels,
            mask=mask,
            probability=probability,
            predicted_iou=float(output.predicted_iou),
        )

    def _overlaps(self) -> bool:
        if self.config.overlaps is not None:
            return self.config.overlaps
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.model.device.type != "cpu" or 2 * torch.get_num_threads() <= cores

    def _fit(self, video: Video, canvas: tuple[int, int]) -> Fit:
        return Fit(
            height=video.height,
            width=video.width,
            rows=canvas[0],
            columns=canvas[1],
            keeps_aspect=self.model.config.frames.keeps_aspect,
        )


def _areas_of(example: ReferringExample) -> Callable[[Sequence[int]], tuple[float, ...]] | None:
    read = example.read_mask
    return None if read is None else lambda frames: tuple(float(read(index).sum()) for index in frames)


@dataclass(frozen=True, slots=True)
class ExampleVideo:
    """An example of a dataset as a `Video`."""

    example: ReferringExample

    @property
    def num_frames(self) -> int:
        """How many there are."""
        return len(self.example)

    @property
    def height(self) -> int:
        """Rows in pixels."""
        return self.example.height

    @property
    def width(self) -> int:
        """Columns in pixels."""
        return self.example.width

    @property
    def rate_hz(self) -> float | None:
        """Frames per second, where known."""
        return self.example.rate_hz

    def __iter__(self) -> Iterator[Frame]:
        """The frames, at even times."""
        for index in range(len(self.example)):
            yield Frame(levels=self.example.read_frame(index), time_s=index / (self.example.rate_hz or 1.0))
