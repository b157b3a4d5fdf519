"""A video and a sentence to masks, frame by frame, with memory that does not grow with the video.

Enters: a `Virst`, a video whose frames can be gone through twice, a sentence. Leaves: `FrameMask` of every frame, in
time order. Does not know files, or how prompts are made.

    first pass     a few frames, as many as the backbone sees      -> prompts, features of the frames that have them
                   anchors chosen before any mask (a policy)       -> their masks and memories
    second pass    every frame, `chunk` of them encoded at a time  -> mask by the tracker, or by the updater

Held at a time: the seen frames at the sizes of the networks, their features, the tracker's memories, three chunks: one
whose masks are made, and up to two that a thread reads and encodes meanwhile. A frame that has a prompt is encoded in
the first pass and not again.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dynin.data.referring.example import ReferringExample
from dynin.errors import MediaError, RequestError
from dynin.media.image import from_levels
from dynin.media.stream import Frame
from dynin.virst.ahead import ahead
from dynin.virst.anchors import AnchorPolicy, Candidates, Dynamic, Oracle, TextSimilarity
from dynin.virst.backbone.protocol import Clips, Sentences
from dynin.virst.branch.protocol import FrameFeatures, MaskOutput
from dynin.virst.frames import Fit, choose, choose_seg, times_of
from dynin.virst.fusion import Prompts, SeenFrames
from dynin.virst.model import Virst
from dynin.virst.outputs import FrameMask
from dynin.virst.tracker import Tracker, TrackerConfig
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
    overlaps: bool | None = None
    """Read and encode frames in a thread while masks are made. None where the thread has cores: torch on a GPU, or with
    at most half as many threads as there are cores. Masks are the same."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Seen:
    """What the first pass leaves."""

    frames: tuple[int, ...]
    """Those that have prompts, each once."""
    features: FrameFeatures
    """Of these."""
    tokens: Float[Tensor, "N T D"]
    """Their prompts."""
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
        for found in self.segment(_ExampleVideo(example), example.sentence, areas=areas):
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
        seen = self._look(video, sentence, generator, areas)
        fit = self._fit(video, self.model.branch.image_size)
        done = 0
        held: dict[int, Frame] = {}
        frames = self._features(video, seen, fit, held)
        if self._overlaps():
            frames = ahead(frames)
        for index, output in self._masks(seen, chain.from_iterable(frames), generator):
            yield self._lifted(index, held.pop(index), output, fit)
            done += 1
            progress(done, video.num_frames)
        if done != video.num_frames:
            raise MediaError(f"the video ended after {done} of {video.num_frames} frames; save or download it again")

    # ---- first pass ------------------------------------------------------------------------------------------------

    def _look(
        self,
        video: Video,
        sentence: str,
        generator: torch.Generator,
        areas: Callable[[Sequence[int]], tuple[float, ...]] | None,
    ) -> _Seen:
        """Prompts, from the frames that the backbone sees."""
        model, frames, device = self.model, self.model.config.frames, self.model.device
        chosen = choose(video.num_frames, frames, generator)
        places = choose_seg(len(chosen), frames, generator)
        frame_px = model.backbone.frame_px
        small, large = self._fit(video, (frame_px, frame_px)), self._fit(video, model.branch.image_size)
        clips: dict[int, Tensor] = {}
        canvases: dict[int, Tensor] = {}
        for index, frame in enumerate(islice(video, max(chosen) + 1)):
            if index in chosen:
                pixels = from_levels(frame.levels)[None]
                clips[index], canvases[index] = small.place(pixels)[0], large.place(pixels)[0]
        if len(clips) != len(set(chosen)):
            raise MediaError(f"the video ended before frame {max(chosen)}; save or download it again")
        seen = [chosen[place] for place in places]
        own = tuple(dict.fromkeys(seen))
        rate_hz = video.rate_hz if model.config.fusion.time_unit == "seconds" else None
        times = times_of(seen, rate_hz)
        is_frame = torch.ones(1, len(chosen), dtype=torch.bool, device=device)
        asked = Clips(frames=torch.stack([clips[index] for index in chosen])[None].to(device), is_frame=is_frame)
        pixels = torch.stack([canvases[index] for index in own]).to(device)
        features, prompts = self._prompts(asked, pixels, [own.index(index) for index in seen], times, sentence)
        firsts = [seen.index(index) for index in own]
        likeness = None
        if isinstance(self.config.anchors, TextSimilarity) and self.likeness is not None:
            likeness = self.likeness([clips[index] for index in own], sentence)
        return _Seen(
            frames=own,
            features=features,
            tokens=prompts.tokens[0][:, firsts],
            likeness=likeness,
            areas=None if areas is None else areas(own),
        )

    def _prompts(
        self,
        clips: Clips,
        pixels: Float[Tensor, "F 3 Y X"],
        at: Sequence[int],
        times: Sequence[float],
        sentence: str,
    ) -> tuple[FrameFeatures, Prompts]:
        """Features of frames and prompts of the seen ones, frame `at[k]` at `times[k]`.

        Where there is a thread for it, it encodes while the backbone reads, unless that waits for the features.
        """
        model = self.model
        sentences, videos = Sentences(texts=(sentence,), videos=(0,)), torch.zeros(1, dtype=torch.long)

        def seen_in(features: FrameFeatures) -> SeenFrames:
            return SeenFrames(
                features=features.cells[list(at)][None],
                is_frame=torch.ones(1, len(at), dtype=torch.bool, device=model.device),
                times=torch.tensor([list(times)], device=model.device),
            )

        if model.initial is not None or not self._overlaps():
            features = model.branch.encode(pixels, chunk=self.config.chunk)
            return features, model.prompts(clips, seen_in(features), sentences)[0]
        with ThreadPoolExecutor(max_workers=1) as worker:
            encoding = worker.submit(torch.no_grad()(model.branch.encode), pixels, chunk=self.config.chunk)
            reading = model.read(clips, sentences, model.backbone.st_embeddings()[None])
            features = encoding.result()
        return features, model.prompts_of(reading, seen_in(features), videos.to(model.device))

    # ---- second pass -----------------------------------------------------------------------------------------------

    @torch.no_grad()  # the thread that comes here has a setting of its own
    def _features(
        self, video: Video, seen: _Seen, fit: Fit, held: dict[int, Frame]
    ) -> Iterator[list[tuple[int, FrameFeatures]]]:
        """Features of the frames of one chunk after another; the frames stay in `held` until they are taken out."""
        chunk: list[int] = []
        new: list[int] = []
        for index, frame in enumerate(video):
            held[index] = frame
            chunk.append(index)
            if index not in seen.frames:
                new.append(index)
            if len(new) == self.config.chunk or len(chunk) == 2 * self.config.chunk:
                yield self._encoded(chunk, new, seen, fit, held)
                chunk, new = [], []
        yield self._encoded(chunk, new, seen, fit, held)

    def _encoded(
        self, chunk: list[int], new: list[int], seen: _Seen, fit: Fit, held: dict[int, Frame]
    ) -> list[tuple[int, FrameFeatures]]:
        if new:
            pixels = torch.cat([fit.place(from_levels(held[index].levels)[None]) for index in new])
            found = self.model.branch.encode(pixels.to(self.model.device), chunk=self.config.chunk)
        places = {index: at for at, index in enumerate(new)}
        return [(index, found.take([places[index]]) if index in places else seen.features_of(index)) for index in chunk]

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

    def _lifted(self, index: int, frame: Frame, output: MaskOutput, fit: Fit) -> FrameMask:
        probability = float(output.object_score.sigmoid())
        mask = np.zeros((fit.height, fit.width), dtype=bool)
        if probability > self.config.threshold:
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
class _ExampleVideo:
    """An example of a dataset as a video."""

    example: ReferringExample

    @property
    def num_frames(self) -> int:
        return len(self.example)

    @property
    def height(self) -> int:
        return self.example.height

    @property
    def width(self) -> int:
        return self.example.width

    @property
    def rate_hz(self) -> float | None:
        return self.example.rate_hz

    def __iter__(self) -> Iterator[Frame]:
        for index in range(len(self.example)):
            yield Frame(levels=self.example.read_frame(index), time_s=index / (self.example.rate_hz or 1.0))
