"""Several videos and all sentences about them, asked in several ways of one model: what the ways share is done once.

Enters: a `Virst`, examples, `SegmentConfig` values. Leaves: masks, which are those of `virst.segment`. Does not know
scores, or what the ways are called.

    look    frames read and encoded, sentences read, prompts made         once for all ways
    masks   anchors by the way's policy                                   prompted masks and memories of a frame: once
            frame after frame, all sentences of all videos together       ways that choose alike: once

A frame is encoded before any mask is made and kept until the next look, so this is for clips, not for long videos:
`segment.Segmenter` goes through those. Anchors that come and go by confidence are asked one sentence after another.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dynin.data.referring.example import ReferringExample
from dynin.errors import ConfigError, DataError
from dynin.media.image import from_levels
from dynin.virst.anchors import AnchorPolicy, Candidates, Dynamic, Oracle, TextSimilarity
from dynin.virst.backbone.protocol import Clips, Sentences
from dynin.virst.branch.protocol import FrameFeatures, MaskOutput, Memory
from dynin.virst.cells import SeenFrames
from dynin.virst.frames import Fit, choose, choose_seg, times_of
from dynin.virst.model import Virst
from dynin.virst.segment import SegmentConfig
from dynin.virst.similarity import TextLikeness
from dynin.virst.tracker import Tracker, TrackerConfig
from dynin.virst.updater import Updater

Anchors = tuple[int, ...]
ClipMasks = Bool[np.ndarray, "T Y X"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pixels:
    """What is known of V videos before any sentence is read."""

    clips: Float[Tensor, "V T 3 y x"]
    """The frames that the backbone sees."""
    chosen: tuple[int, ...]
    """Which they are."""
    seen: tuple[int, ...]
    """Those of them that the fusions see."""
    features: FrameFeatures
    """Of all frames, video by video."""
    num_frames: int
    fit: Fit
    """Where a frame lies on the canvas of the mask branch."""
    vectors: dict[int, Float[Tensor, "S D"]] = field(default_factory=dict)
    """By video: what an image-text model makes of its candidates, once asked for."""

    @property
    def candidates(self) -> tuple[int, ...]:
        """Frames that have prompts, each once."""
        return tuple(dict.fromkeys(self.seen))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Looked:
    """R sentences about V videos, with prompts."""

    rows: tuple[ReferringExample, ...]
    videos: tuple[int, ...]
    """The video of each row."""
    pixels: Pixels
    tokens: Float[Tensor, "R N S D"]
    """Prompts of the candidates."""
    prompted: dict[tuple[TrackerConfig, int], tuple[MaskOutput, Memory]] = field(default_factory=dict)
    """Of all rows, by settings and frame, once asked for."""
    answers: dict[tuple[int, Anchors, TrackerConfig, float], ClipMasks] = field(default_factory=dict)
    """By row and what its masks follow from."""

    def features(self, frame: int, rows: Sequence[int]) -> FrameFeatures:
        """Features of a frame for some rows."""
        return self.pixels.features.take([self.videos[row] * self.pixels.num_frames + frame for row in rows])


class Panel:
    """One model, asked about many videos in many ways."""

    def __init__(self, model: Virst, *, likeness: TextLikeness | None = None) -> None:
        """`likeness` compares frames with sentences, for anchors by text similarity.

        Raises:
            ConfigError: If the model draws its frames, which then are others for every sentence.
        """
        if model.config.frames.sampling != "centres":
            raise ConfigError(
                f"setting 'frames.sampling' is {model.config.frames.sampling!r}: frames are drawn for every sentence, "
                "so nothing can be shared; ask one sentence at a time"
            )
        self.model, self.likeness = model, likeness

    @torch.no_grad()
    def watch(self, videos: Sequence[ReferringExample]) -> Pixels:
        """Read and encode every frame of some videos of equal length and size.

        Raises:
            DataError: If they differ in length or size, or a frame has another size than its video.
        """
        shapes = {(len(video), video.height, video.width) for video in videos}
        if len(shapes) != 1:
            raise DataError(f"videos of {sorted(shapes)} frames, rows and columns were given; expected all alike")
        (num_frames, height, width) = shapes.pop()
        model, frames = self.model, self.model.config.frames
        chosen = choose(num_frames, frames)
        seen = [chosen[place] for place in choose_seg(len(chosen), frames)]
        side = model.backbone.frame_px
        small, large = (
            Fit(height=height, width=width, rows=size[0], columns=size[1], keeps_aspect=frames.keeps_aspect)
            for size in ((side, side), model.branch.image_size)
        )
        whole = torch.stack([_frame(video, index) for video in videos for index in range(num_frames)])
        features = model.branch.encode(large.place(whole).to(model.device))
        places = [video * num_frames + index for video in range(len(videos)) for index in chosen]
        return Pixels(
            clips=small.place(whole[places]).unflatten(0, (len(videos), -1)).to(model.device),
            chosen=tuple(chosen),
            seen=tuple(seen),
            features=features,
            num_frames=num_frames,
            fit=large,
        )

    @torch.no_grad()
    def read(self, videos: Sequence[Sequence[ReferringExample]], pixels: Pixels) -> Looked:
        """Prompts of all sentences of the videos that were watched.

        Raises:
            RequestError: If a sentence is too long for the backbone.
        """
        model = self.model
        rows = [(example, video) for video, examples in enumerate(videos) for example in examples]
        seen, own = pixels.seen, pixels.candidates
        cells = pixels.features.cells.unflatten(0, (len(videos), -1))[:, list(seen)]
        is_seconds = model.config.fusion.time_unit == "seconds"
        times = [times_of(seen, examples[0].rate_hz if is_seconds else None) for examples in videos]
        device = model.device
        prompts, _ = model.prompts(
            Clips(frames=pixels.clips, is_frame=torch.ones(pixels.clips.shape[:2], dtype=torch.bool, device=device)),
            SeenFrames(
                features=cells,
                is_frame=torch.ones(cells.shape[:2], dtype=torch.bool, device=device),
                times=torch.tensor(times, device=device),
            ),
            Sentences(texts=tuple(row.sentence for row, _ in rows), videos=tuple(video for _, video in rows)),
        )
        return Looked(
            rows=tuple(row for row, _ in rows),
            videos=tuple(video for _, video in rows),
            pixels=pixels,
            tokens=prompts.tokens[:, :, [seen.index(frame) for frame in own]],
        )

    @torch.no_grad()
    def masks(self, looked: Looked, config: SegmentConfig, *, seed: int = 0) -> list[ClipMasks]:
        """Masks of all frames for every row.

        Args:
            seed: What is drawn for a row is drawn from this and the names of its video and sentence.

        Raises:
            RequestError: If the policy lacks something.
        """
        is_there = self._are_there(looked, config)
        found = self._found(looked, config, seed)
        return [mask if there else np.zeros_like(mask) for mask, there in zip(found, is_there, strict=True)]

    def _are_there(self, looked: Looked, config: SegmentConfig) -> list[bool]:
        """Whether each sentence is about something, see `VirstConfig.least_presence`."""
        least = self.model.config.least_presence if config.least_presence is None else config.least_presence
        if not least:
            return [True] * len(looked.rows)
        tracker = _tracker_of(config, 1)
        scores = [self._prompted(looked, at, tracker)[0].object_score.sigmoid() for at in looked.pixels.candidates]
        return (torch.stack(scores).mean(dim=0) >= least).tolist()

    def _found(self, looked: Looked, config: SegmentConfig, seed: int) -> list[ClipMasks]:
        """Masks wherever frames show them; arguments and errors as in `masks`."""
        if isinstance(config.anchors, Dynamic):
            return [self._by_confidence(looked, row, config, config.anchors) for row in range(len(looked.rows))]
        policy: AnchorPolicy = config.anchors
        keys = []
        for row in range(len(looked.rows)):
            generator = torch.Generator().manual_seed(drawn_for(looked.rows[row], seed))
            anchors = policy.choose(self._candidates(looked, row, policy), generator)
            keys.append((row, anchors, _tracker_of(config, len(anchors)), config.threshold))
        missing: dict[TrackerConfig, dict[Anchors, list[int]]] = {}
        for row, anchors, tracker, threshold in keys:
            if (row, anchors, tracker, threshold) not in looked.answers:
                missing.setdefault(tracker, {}).setdefault(anchors, []).append(row)
        for tracker, groups in missing.items():
            found = self._tracked(looked, groups, tracker, config.threshold)
            for anchors, rows in groups.items():
                for row in rows:
                    looked.answers[row, anchors, tracker, config.threshold] = found[row]
        return [looked.answers[key] for key in keys]

    def _candidates(self, looked: Looked, row: int, policy: AnchorPolicy) -> Candidates:
        """What a policy chooses from, with what it asks for."""
        example, video, pixels = looked.rows[row], looked.videos[row], looked.pixels
        frames = pixels.candidates
        likeness = areas = None
        if isinstance(policy, TextSimilarity) and self.likeness is not None:
            if video not in pixels.vectors:
                clips = [pixels.clips[video, pixels.chosen.index(frame)] for frame in frames]
                pixels.vectors[video] = self.likeness.of_frames(clips)
            likeness = tuple((pixels.vectors[video] @ self.likeness.of_sentence(example.sentence)).tolist())
        if isinstance(policy, Oracle) and example.read_mask is not None:
            areas = tuple(float(example.read_mask(frame).sum()) for frame in frames)
        return Candidates(frames=frames, likeness=likeness, areas=areas)

    def _tracked(
        self, looked: Looked, groups: Mapping[Anchors, list[int]], config: TrackerConfig, threshold: float
    ) -> dict[int, ClipMasks]:
        """Masks of rows by their anchors: what rows remember differs, what is made of it is made for all together."""
        pixels, rows = looked.pixels, [row for group in groups.values() for row in group]
        whole = Tracker(self.model.branch, config)
        trackers = {anchors: Tracker(self.model.branch, config) for anchors in groups}
        for anchors, tracker in trackers.items():
            for anchor in anchors:
                _, memory = self._prompted(looked, anchor, config)
                tracker.bank.anchors[anchor] = _memory_of(memory, groups[anchors])
        lifted: dict[int, list[Bool[np.ndarray, "Y X"]]] = {row: [] for row in rows}
        for frame in range(pixels.num_frames):
            others = [anchors for anchors in groups if frame not in anchors]
            asked = [row for anchors in others for row in groups[anchors]]
            if prompted := [row for row in rows if row not in set(asked)]:
                output = _output_of(self._prompted(looked, frame, config)[0], prompted)
                _add(lifted, prompted, self._lifted(output, pixels.fit, threshold))
            if not asked:
                continue
            features = looked.features(frame, asked)
            cells = torch.cat(
                [trackers[anchors].look_back(frame, looked.features(frame, groups[anchors])) for anchors in others]
            )
            output = self.model.branch.decode(cells, features, None, choice=config.choice, gate=config.gate)
            _add(lifted, asked, self._lifted(output, pixels.fit, threshold))
            if frame + 1 < pixels.num_frames:
                whole.keep(frame, features, output)
                memory = whole.bank.recent.pop(frame)
                for anchors in others:
                    part = _memory_of(memory, [asked.index(row) for row in groups[anchors]])
                    trackers[anchors].bank.recent[frame] = part
                    trackers[anchors].bank.pointers[frame] = part.pointer
            for tracker in trackers.values():
                tracker.forget(frame + 1)
        return {row: np.stack(masks) for row, masks in lifted.items()}

    def _prompted(self, looked: Looked, frame: int, config: TrackerConfig) -> tuple[MaskOutput, Memory]:
        """What the prompts of a frame make of it, and its memory, for all rows; made once."""
        key = (replace(config, num_attended=None), frame)
        if key not in looked.prompted:
            tracker = Tracker(self.model.branch, config)
            features = looked.features(frame, range(len(looked.rows)))
            at = looked.pixels.candidates.index(frame)
            output = tracker.prompt(features, looked.tokens[:, :, at])
            tracker.admit(frame, features, output)
            looked.prompted[key] = output, tracker.bank.anchors[frame]
        return looked.prompted[key]

    def _by_confidence(self, looked: Looked, row: int, config: SegmentConfig, policy: Dynamic) -> ClipMasks:
        """Masks of one row with anchors that come and go."""
        pixels = looked.pixels
        prompts = {frame: looked.tokens[row : row + 1, :, at] for at, frame in enumerate(pixels.candidates)}
        features: Callable[[int], FrameFeatures] = lambda frame: looked.features(frame, [row])  # noqa: E731
        tracker = Tracker(self.model.branch, replace(config.tracker, gate="hard"))
        frames = ((frame, features(frame)) for frame in range(pixels.num_frames))
        found = [output for _, output in Updater(policy, tracker, prompts, features).run(frames)]
        return np.concatenate([self._lifted(output, pixels.fit, config.threshold) for output in found])

    def _lifted(self, output: MaskOutput, fit: Fit, threshold: float) -> Bool[np.ndarray, "R Y X"]:
        """Masks at the size of the frame; empty where nothing is judged visible."""
        is_there = output.object_score.sigmoid() > threshold
        masks: Bool[np.ndarray, "R Y X"] = ((fit.lift(output.mask_logits) > 0) & is_there[:, None, None]).cpu().numpy()
        return masks


def drawn_for(example: ReferringExample, seed: int) -> int:
    """The seed of what is drawn for an example, whatever else is asked."""
    return zlib.crc32(f"{seed}/{example.video}/{example.sentence_id}".encode())


def alike(videos: Iterable[Sequence[ReferringExample]]) -> list[list[int]]:
    """Places of videos of equal length and size, together; videos without sentences are left out."""
    groups: dict[tuple[int, int, int], list[int]] = {}
    for place, examples in enumerate(videos):
        if examples:
            first = examples[0]
            groups.setdefault((len(first), first.height, first.width), []).append(place)
    return list(groups.values())


def _tracker_of(config: SegmentConfig, num_anchors: int) -> TrackerConfig:
    """The settings of tracking, equal for ways that are."""
    attended = config.tracker.num_attended
    is_all = attended is None or attended >= num_anchors
    return replace(config.tracker, gate="hard", num_attended=None if is_all else attended)


def _frame(example: ReferringExample, index: int) -> Float[Tensor, "3 Y X"]:
    levels = example.read_frame(index)
    if levels.shape[:2] != (example.height, example.width):
        raise DataError(
            f"frame {example.frame_names[index]} of {example.video} has {levels.shape[1]} x {levels.shape[0]} px, its "
            f"video {example.width} x {example.height}; correct the file or the annotation"
        )
    return from_levels(levels)


def _output_of(output: MaskOutput, rows: Sequence[int]) -> MaskOutput:
    """Some rows of an output."""
    at = torch.tensor(rows, device=output.object_score.device)
    return MaskOutput(**{name: getattr(output, name)[at] for name in MaskOutput.__dataclass_fields__})


def _memory_of(memory: Memory, rows: Sequence[int]) -> Memory:
    """Some rows of a memory; a position code may be the same for all."""
    at = torch.tensor(rows, device=memory.cells.device)
    position = memory.position if len(memory.position) == 1 else memory.position[at]
    return Memory(cells=memory.cells[at], position=position, pointer=memory.pointer[at])


def _add(lifted: Mapping[int, list[Bool[np.ndarray, "Y X"]]], rows: Sequence[int], masks: np.ndarray) -> None:
    """A mask more for each row."""
    for row, mask in zip(rows, masks, strict=True):
        lifted[row].append(mask)
