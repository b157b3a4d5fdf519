"""Anchors that are admitted, replaced and dismissed by confidence while the video advances.

Enters: settings, a tracker, prompts of some frames, features of one frame after another. Leaves: a mask of every frame.
Does not know sentences, files, or how prompts were made.

A candidate is a frame that has prompts of its own. What a mask is worth is said by the mask branch:

    confidence  P(visible) x predicted IoU                   makes anchors
    trust       confidence where the object is visible, P(not visible) where it is not      chooses between two masks
    worth       confidence x 0.5 ^ (distance / half life)    keeps anchors: the set slides along, good ones stay longer

For each frame, in this order:

1. the set is renewed: the most worthy of the admitted candidates, at most `num_prompted` (causal: of those that the
   video has reached);
2. the mask is propagated from the set, if there is one;
3. a candidate is decoded from its prompts too. Where the two masks agree, or the prompted one is trusted more, it is
   taken, and admitted if its confidence reaches the bar; otherwise it is dismissed for good. Memory that sees nothing
   has no say against a prompted mask that does: it may have lost the object;
4. any other frame whose propagated mask is trusted little, or that has none, is decoded from the prompts of the nearest
   candidate; if that is trusted more it is taken, and the frame becomes an anchor if its confidence reaches the bar.

Two-sided, candidates are decoded before the first frame, so that anchors may lie ahead; and each window of frames is
gone through backward as well: of the two masks of a frame, the one that is trusted more is kept.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dynin.errors import RequestError
from dynin.virst.anchors import Dynamic
from dynin.virst.branch.protocol import FrameFeatures, MaskOutput, Memory
from dynin.virst.tracker import Tracker


@dataclass(kw_only=True, slots=True)
class Count:
    """What an updater has done so far."""

    prompted: int = 0
    """Frames that were decoded from prompts."""
    admitted: int = 0
    dismissed: int = 0
    """Anchors that failed when the video came to them."""
    replaced: int = 0
    """Anchors that gave way to worthier ones."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Known:
    """A frame that may be an anchor."""

    memory: Memory
    confidence: float


class Updater:
    """One sentence about one video, one frame after another, each once and in time order."""

    def __init__(
        self,
        policy: Dynamic,
        tracker: Tracker,
        prompts: Mapping[int, Float[Tensor, "1 N D"]],
        features: Callable[[int], FrameFeatures] | None = None,
    ) -> None:
        """Start a video.

        Args:
            tracker: With nothing in its bank.
            prompts: Of the candidates, by frame.
            features: Of the candidates, by frame; only a two-sided policy asks for them ahead of time.

        Raises:
            RequestError: If there is no candidate, or a two-sided policy cannot look ahead.
        """
        if not prompts or (policy.is_two_sided and features is None):
            raise RequestError(
                f"{len(prompts)} frames with prompts{'' if features else ' and no features of them'} were given; "
                "expected at least one, and their features ahead of time where anchors are two-sided"
            )
        self.policy = policy
        self.tracker = tracker
        self.count = Count()
        self._prompts = dict(sorted(prompts.items()))
        frames = list(self._prompts)
        self._spacing = max(1.0, (frames[-1] - frames[0]) / max(1, len(frames) - 1))
        self._known: dict[int, _Known] = {}
        self._ahead: dict[int, MaskOutput] = {}
        if policy.is_two_sided and features is not None:
            for frame in frames:
                found = features(frame)
                self._ahead[frame] = self._prompted(found, frame)
                self._consider(frame, found, self._ahead[frame])
        self._backward = Tracker(tracker.branch, tracker.config, max_pointers=tracker.max_pointers)
        self._backward.bank.anchors = tracker.bank.anchors  # one set for both directions

    def run(self, frames: Iterable[tuple[int, FrameFeatures]]) -> Iterator[tuple[int, MaskOutput]]:
        """Masks of frames in time order; `window` frames are held at a time, or one where nothing runs backward."""
        size = self.policy.window if self.policy.is_two_sided else 1
        held: list[tuple[int, FrameFeatures]] = []
        for each in frames:
            held.append(each)
            if len(held) == size:
                yield from self._window(held)
                held = []
        yield from self._window(held)

    def _window(self, frames: list[tuple[int, FrameFeatures]]) -> Iterator[tuple[int, MaskOutput]]:
        outputs = {frame: self.step(frame, features) for frame, features in frames}
        if self.policy.is_two_sided:
            for frame, features in reversed(frames):
                if frame not in self.tracker.bank.anchors and self.tracker.bank.anchors:
                    output = self._backward.propagate(frame, features, -1)
                    if trust(output) > trust(outputs[frame]):
                        outputs[frame] = output
                    self._backward.keep(frame, features, outputs[frame])
            self._backward.bank.recent.clear()
            self._backward.bank.pointers.clear()
        yield from outputs.items()

    def step(self, frame: int, features: FrameFeatures) -> MaskOutput:
        """The mask of the next frame, going forward."""
        self._renew(frame)
        bank = self.tracker.bank
        is_alone = not [anchor for anchor in bank.anchors if anchor != frame]
        spread = None if is_alone else self._propagated(frame, features)
        if frame in self._prompts:
            output = self._of_candidate(frame, features, spread)
        elif spread is None or trust(spread) < self.policy.reprompt_below:
            again = self._prompted(features, self._nearest(frame))
            output = again if spread is None or trust(again) > trust(spread) else spread
            if output is again:
                self._consider(frame, features, again)
        else:
            output = spread
        if frame in self._known:
            self._renew(frame)
        if bank.anchors and frame not in bank.anchors:
            self.tracker.keep(frame, features, output)
        self.tracker.forget(frame + 1)
        return output

    def _nearest(self, frame: int) -> int:
        """The candidate whose prompts serve a frame without its own; causal: one that lies behind, if there is one."""
        reached = [candidate for candidate in self._prompts if candidate <= frame]
        among = list(self._prompts) if self.policy.is_two_sided or not reached else reached
        return min(among, key=lambda candidate: (abs(candidate - frame), candidate))

    def _of_candidate(self, frame: int, features: FrameFeatures, spread: MaskOutput | None) -> MaskOutput:
        own = self._ahead.pop(frame, None) or self._prompted(features, frame)
        if spread is None or not self._is_doubted(own, spread):
            if frame not in self._known:
                self._consider(frame, features, own)
            return own
        if self._known.pop(frame, None) is not None:
            self.count.dismissed += 1
            self.tracker.bank.anchors.pop(frame, None)
        return spread

    def _is_doubted(self, own: MaskOutput, spread: MaskOutput) -> bool:
        """Whether the mask from memory takes the place of a candidate's own."""
        is_lost = bool(own.object_score > 0) and not bool(spread.object_score > 0)
        return not is_lost and agreement(own, spread) < self.policy.least_agreement and trust(spread) > trust(own)

    def _propagated(self, frame: int, features: FrameFeatures) -> MaskOutput:
        """From memory, without the memory of the frame itself."""
        anchors = self.tracker.bank.anchors
        itself = anchors.pop(frame, None)
        output = self.tracker.propagate(frame, features)
        if itself is not None:
            anchors[frame] = itself
        return output

    def _prompted(self, features: FrameFeatures, candidate: int) -> MaskOutput:
        self.count.prompted += 1
        return self.tracker.prompt(features, self._prompts[candidate])

    def _consider(self, frame: int, features: FrameFeatures, output: MaskOutput) -> None:
        """Admit a frame if its confidence reaches the bar."""
        confidence = float(output.confidence)
        if confidence >= self.policy.least_confidence and bool(output.object_score > 0):
            self.tracker.admit(frame, features, output)
            self._known[frame] = _Known(memory=self.tracker.bank.anchors[frame], confidence=confidence)
            self.count.admitted += 1

    def _renew(self, frame: int) -> None:
        """Put the worthiest of the known frames into the tracker's bank, and drop what will never be one again."""
        worth = {
            known: each.confidence * 0.5 ** (abs(frame - known) / (self.policy.half_life * self._spacing))
            for known, each in self._known.items()
        }
        ranked = sorted(worth, key=lambda known: -worth[known])
        chosen = sorted(ranked[: self.policy.num_prompted])
        anchors = self.tracker.bank.anchors
        for gone in [anchor for anchor in anchors if anchor not in chosen]:
            if gone < frame:
                self.count.replaced += 1
                self.tracker.dismiss(gone)
            else:
                del anchors[gone]
        for anchor in chosen:
            anchors.setdefault(anchor, self._known[anchor].memory)
        # A frame behind that is outdone falls behind ever more: only what lies ahead can still rise.
        self._known = {known: each for known, each in self._known.items() if known in chosen or known > frame}


def trust(output: MaskOutput) -> float:
    """How far a mask can be relied on, in [0, 1]: its confidence, or how sure it is that there is nothing."""
    is_present = bool(output.object_score > 0)
    return float(output.confidence if is_present else 1 - output.object_score.sigmoid())


def agreement(first: MaskOutput, second: MaskOutput) -> float:
    """IoU of two masks of one frame, both gated; 1 where both are empty."""
    one, other = first.gated_logits() > 0, second.gated_logits() > 0
    union = torch.logical_or(one, other).sum()
    return float(torch.logical_and(one, other).sum() / union) if union > 0 else 1.0
