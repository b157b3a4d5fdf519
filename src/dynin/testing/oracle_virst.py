"""The order in which the published VIRST works, on whatever weights: plain, and repetitive on purpose.

Enters: a `Virst`, a video, a sentence. Leaves: a mask of every frame. Does not know the streaming segmenter of this
package, which is held against it.

    frames that are seen --encode--> initial fusion, where it is on     | the same frames are encoded for each of
                         --read----> [ST] states                        | the two fusions, all in one batch
                         --encode--> second fusion, frames scored       |
    the whole video in memory at the network's size
    first frame          --encode                                       | one frame at a time from here; the features
    each anchor          --encode, decode, enlarge                      | of the frame that was encoded last are kept,
    each anchor          --encode, remember                             | and of no other
    every other frame    --encode, attend, decode, enlarge, remember

Every part that is called is this package's: the networks are the same, so that times differ by order and number of
calls alone. What the published code does besides is left out, in its favour: logits of all text places and their loss,
a second decoding of the video's file, and 16-bit copies of memories. Its adapters stay beside their matrices, so give
it a model whose adapters were not added in.

Which frames are seen, how a frame lies on its canvas, and what a frame looks at (`virst.tracker`) are this package's,
so that the masks are comparable. Parity: the published pointers of anchors come from attended ones alone; that differs
where more anchors are prompted than attended.

Source:
    VIRST, arXiv:2603.27060, and the video predictor of SAM 2, arXiv:2408.00714: its cache holds one frame.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from dynin.media.image import from_levels
from dynin.virst.anchors import AnchorPolicy, Candidates
from dynin.virst.backbone.protocol import Clips, Sentences
from dynin.virst.branch.protocol import FrameFeatures, MaskOutput
from dynin.virst.cells import SeenFrames
from dynin.virst.frames import Fit, choose, choose_seg, times_of
from dynin.virst.model import Virst
from dynin.virst.segment import Video
from dynin.virst.tracker import Tracker, TrackerConfig


@torch.no_grad()
def segment(
    model: Virst, video: Video, sentence: str, *, anchors: AnchorPolicy, tracker: TrackerConfig
) -> list[Bool[np.ndarray, "Y X"]]:
    """A mask of every frame.

    Args:
        anchors: Chooses among the frames that the fusions see; the published way is `Published()`.
    """
    chosen = choose(video.num_frames, model.config.frames)
    places = choose_seg(len(chosen), model.config.frames)
    seen = [chosen[place] for place in places]
    prompts = _prompts(model, video, sentence, chosen, seen)
    taken = anchors.choose(Candidates(frames=tuple(dict.fromkeys(seen))))
    predictor = _Predictor(model, video, Tracker(model.branch, tracker))
    for anchor in taken:
        predictor.prompt(anchor, prompts[:, :, seen.index(anchor)])
    return predictor.propagate()


def _prompts(model: Virst, video: Video, sentence: str, chosen: list[int], seen: list[int]) -> Float[Tensor, "1 N T D"]:
    """Prompts of every seen frame; features are computed for each fusion anew."""
    side = model.backbone.frame_px
    small, large = _fit(model, video, (side, side)), _fit(model, video, model.branch.image_size)
    pixels = {index: from_levels(frame.levels)[None] for index, frame in enumerate(video) if index in chosen}
    clips = Clips(
        frames=torch.cat([small.place(pixels[index]) for index in chosen])[None],
        is_frame=torch.ones(1, len(chosen), dtype=torch.bool),
    ).to(model.device)
    canvases = torch.cat([large.place(pixels[index]) for index in seen]).to(model.device)
    sentences, videos = Sentences(texts=(sentence,), videos=(0,)), torch.zeros(1, dtype=torch.long, device=model.device)

    def encoded() -> SeenFrames:
        rate_hz = video.rate_hz if model.config.fusion.time_unit == "seconds" else None
        features = model.branch.encode(canvases, chunk=len(seen))
        is_frame = torch.ones(1, len(seen), dtype=torch.bool, device=model.device)
        times = torch.tensor([times_of(seen, rate_hz)], device=model.device)
        return SeenFrames(features=features.cells[None], is_frame=is_frame, times=times)

    st = model.backbone.st_embeddings()[None]
    if model.initial is not None:
        st = model.initial(st, encoded(), videos)
    reading = model.read(clips, sentences, st)
    read = model.cells_of(reading)
    return model.second(reading.st_states, encoded(), videos, read=read, wants_scores=True).tokens


class _Predictor:
    """The video predictor: everything of a video in memory, features of one frame at a time."""

    def __init__(self, model: Virst, video: Video, tracker: Tracker) -> None:
        self.branch, self.tracker = model.branch, tracker
        self.fit = _fit(model, video, model.branch.image_size)
        self.frames = [self.fit.place(from_levels(frame.levels)[None]).to(model.device) for frame in video]
        self.outputs: dict[int, MaskOutput] = {}
        self.cached: tuple[int, FrameFeatures] | None = None
        self.features(0)

    def features(self, frame: int) -> FrameFeatures:
        """Of one frame, computed unless it was the last one asked for."""
        if self.cached is None or self.cached[0] != frame:
            self.cached = frame, self.branch.encode(self.frames[frame])
        return self.cached[1]

    def prompt(self, anchor: int, prompts: Float[Tensor, "1 N D"]) -> None:
        """The mask of an anchor, brought to the size of the video, where nobody looks at it."""
        self.outputs[anchor] = self.tracker.prompt(self.features(anchor), prompts)
        self._enlarge(self.outputs[anchor])
        self._mask(self.outputs[anchor])

    def propagate(self) -> list[Bool[np.ndarray, "Y X"]]:
        """Memories of all anchors, then every frame from the first to the last."""
        for anchor in list(self.outputs):
            self.tracker.admit(anchor, self.features(anchor), self.outputs[anchor])
        masks = []
        for frame in range(len(self.frames)):
            if frame not in self.outputs:
                output = self.tracker.propagate(frame, self.features(frame))
                self._enlarge(output)
                self.tracker.keep(frame, self.features(frame), output)
                self.outputs[frame] = output
            masks.append(self._mask(self.outputs[frame]))
        return masks

    def _enlarge(self, output: MaskOutput) -> Float[Tensor, "1 M Y X"]:
        """Every candidate at the size of the network's frames."""
        return F.interpolate(output.candidate_logits, size=self.branch.image_size, mode="bilinear", align_corners=False)

    def _mask(self, output: MaskOutput) -> Bool[np.ndarray, "Y X"]:
        return (self.fit.lift(output.gated_logits())[0] > 0).cpu().numpy()


def _fit(model: Virst, video: Video, canvas: tuple[int, int]) -> Fit:
    return Fit(
        height=video.height,
        width=video.width,
        rows=canvas[0],
        columns=canvas[1],
        keeps_aspect=model.config.frames.keeps_aspect,
    )
