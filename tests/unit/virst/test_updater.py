"""Anchors that come and go: decisions, against a branch whose every word is written down."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from dynin.errors import RequestError
from dynin.virst.anchors import Dynamic
from dynin.virst.branch.protocol import FrameFeatures, MaskOutput, Memory, Pointed, Recalled
from dynin.virst.tracker import Tracker, TrackerConfig, plan, track
from dynin.virst.updater import Updater, agreement, trust
from tests.tiny_branch import WIDTH, random_frames, shared_branch

LEFT, RIGHT, GONE = 0, 1, None
Place = Literal[0, 1] | None
CAUSAL = Dynamic(num_prompted=2, half_life=2.0)


def said(place: Place, confidence: float) -> MaskOutput:
    """A mask at one of two places, or none, that is trusted as far as said."""
    logits = torch.full((1, 1, 2), -9.0)
    if place is not None:
        logits[0, 0, place] = 9.0
    visible = max(confidence, 0.9)
    probability = torch.tensor([visible if place is not None else 1 - confidence])
    return MaskOutput(
        mask_logits=logits,
        predicted_iou=torch.tensor([confidence / visible]),
        object_score=torch.logit(probability, eps=1e-6),
        pointer=torch.zeros(1, 2),
        candidate_logits=logits[:, None],
        candidate_iou=torch.ones(1, 1),
        chosen=torch.zeros(1, dtype=torch.long),
    )


@dataclass
class Scripted:
    """A mask branch that says of every frame what is written: from prompts, and from memory."""

    own: dict[int, tuple[Place, float]]
    spread: dict[int, tuple[Place, float]]
    width = 2
    image_size = grid = mask_size = (1, 2)
    num_recent = 6
    max_pointers = 16

    def __post_init__(self) -> None:
        self.looked_at: dict[int, list[int]] = {}

    def encode(self, frames: Tensor, *, chunk: int = 8) -> FrameFeatures:
        raise NotImplementedError

    def place(self, points: Tensor) -> Tensor:
        raise NotImplementedError

    def without_memory(self, features: FrameFeatures) -> Tensor:
        return features.cells

    def attend(
        self, features: FrameFeatures, recalled: Sequence[Recalled], pointers: Sequence[Pointed], *, max_pointers: int
    ) -> Tensor:
        frame = int(features.cells[0, 0, 0, 0])
        self.looked_at[frame] = [int(each.memory.cells[0, 0, 0]) for each in recalled if each.steps_back == 0]
        return features.cells

    def decode(self, cells: Tensor, features: FrameFeatures, prompts: Tensor | None, **_: object) -> MaskOutput:
        frame = int(cells[0, 0, 0, 0])
        place, confidence = (self.spread if prompts is None else self.own)[frame]
        return said(place, confidence)

    def remember(self, features: FrameFeatures, output: MaskOutput, **_: object) -> Memory:
        return Memory(
            cells=features.cells.reshape(1, 2, 1)[:, :1], position=torch.zeros(1, 1, 1), pointer=output.pointer
        )


def features_of(frame: int) -> FrameFeatures:
    return FrameFeatures(cells=torch.full((1, 1, 1, 2), float(frame)), position=torch.zeros(1, 1, 1, 2), fine=())


def place_of(output: MaskOutput) -> Place:
    shown = output.gated_logits()[0, 0] > 0
    return GONE if not shown.any() else (LEFT if shown[0] else RIGHT)


def walk(branch: Scripted, policy: Dynamic, candidates: Sequence[int], count: int) -> tuple[Updater, dict[int, Place]]:
    prompts = {frame: torch.zeros(1, 1, 2) for frame in candidates}
    updater = Updater(policy, Tracker(branch, TrackerConfig()), prompts, features_of)
    made = dict(updater.run((frame, features_of(frame)) for frame in range(count)))
    return updater, {frame: place_of(output) for frame, output in made.items()}


def test_a_trusted_prompt_becomes_an_anchor_and_later_ones_replace_it() -> None:
    sure = {frame: (LEFT, 0.9) for frame in range(12)}
    branch = Scripted(own=sure, spread=sure)
    updater, masks = walk(branch, CAUSAL, [0, 4, 8], 12)
    assert set(masks.values()) == {LEFT}
    assert branch.looked_at[3] == [0]
    assert sorted(branch.looked_at[7]) == [0, 4]
    assert sorted(branch.looked_at[11]) == [4, 8]
    assert (updater.count.admitted, updater.count.replaced, updater.count.dismissed) == (3, 1, 0)


def test_an_anchor_worth_more_stays_when_a_nearer_one_is_doubtful() -> None:
    own = {0: (LEFT, 0.99), 4: (LEFT, 0.55), 5: (LEFT, 0.55)}
    branch = Scripted(own=own, spread={frame: (LEFT, 0.9) for frame in range(7)})
    walk(branch, Dynamic(num_prompted=1, half_life=20.0), [0, 4, 5], 7)
    assert branch.looked_at[6] == [0]


def test_a_prompt_that_contradicts_a_trusted_track_is_not_admitted() -> None:
    own = {0: (LEFT, 0.9), 3: (RIGHT, 0.6)}
    branch = Scripted(own=own, spread={frame: (LEFT, 0.95) for frame in range(6)})
    updater, masks = walk(branch, CAUSAL, [0, 3], 6)
    assert masks[3] == LEFT
    assert branch.looked_at[5] == [0]
    assert updater.count.admitted == 1


def test_a_prompt_that_is_trusted_more_than_the_track_corrects_it() -> None:
    own = {0: (LEFT, 0.9), 3: (RIGHT, 0.97)}
    branch = Scripted(own=own, spread={frame: (LEFT, 0.6) for frame in range(6)})
    _, masks = walk(branch, CAUSAL, [0, 3], 6)
    assert masks[3] == RIGHT
    assert sorted(branch.looked_at[5]) == [0, 3]


def test_a_track_that_lost_the_object_has_no_say_against_a_prompt_that_finds_it() -> None:
    own = {0: (LEFT, 0.9), 1: (LEFT, 0.6)}
    updater, masks = walk(Scripted(own=own, spread={1: (GONE, 0.99)}), CAUSAL, [0, 1], 2)
    assert masks == {0: LEFT, 1: LEFT}
    assert updater.count.admitted == 2
    own = {0: (LEFT, 0.9), 1: (GONE, 0.6)}
    _, masks = walk(Scripted(own=own, spread={1: (LEFT, 0.99)}), CAUSAL, [0, 1], 2)
    assert masks == {0: LEFT, 1: LEFT}  # the other way round it has


def test_a_frame_without_the_object_is_no_anchor_but_its_emptiness_counts() -> None:
    own = {0: (LEFT, 0.9), 3: (GONE, 0.98)}
    branch = Scripted(own=own, spread={frame: (LEFT, 0.7) for frame in range(6)})
    updater, masks = walk(branch, CAUSAL, [0, 3], 6)
    assert masks[3] is GONE
    assert branch.looked_at[5] == [0]
    assert updater.count.admitted == 1


def test_before_the_object_appears_frames_are_asked_from_prompts_and_remain_empty() -> None:
    own = {**{frame: (GONE, 0.9) for frame in range(4)}, 4: (RIGHT, 0.9)}
    branch = Scripted(own=own, spread={frame: (RIGHT, 0.9) for frame in range(8)})
    updater, masks = walk(branch, CAUSAL, [0, 4], 8)
    assert [masks[frame] for frame in range(8)] == [GONE] * 4 + [RIGHT] * 4
    assert 3 not in branch.looked_at
    assert updater.count.prompted == 5


def test_a_doubtful_track_is_asked_again_and_the_answer_becomes_an_anchor() -> None:
    own = {0: (LEFT, 0.9), 5: (RIGHT, 0.8)}
    spread = {frame: (LEFT, 0.9) for frame in range(8)} | {5: (LEFT, 0.2)}
    branch = Scripted(own=own, spread=spread)
    _, masks = walk(branch, CAUSAL, [0], 8)
    assert masks[5] == RIGHT
    assert sorted(branch.looked_at[7]) == [0, 5]


def test_two_sided_anchors_lie_ahead_and_are_dismissed_when_they_fail_there() -> None:
    own = {0: (LEFT, 0.9), 4: (RIGHT, 0.6)}
    branch = Scripted(own=own, spread={frame: (LEFT, 0.95) for frame in range(7)})
    updater, masks = walk(branch, replace(CAUSAL, is_two_sided=True), [0, 4], 7)
    assert updater.count.dismissed == 1
    assert masks[4] == LEFT
    assert branch.looked_at[6] == [0]


def test_two_sided_a_frame_before_any_trusted_prompt_is_reached_from_behind() -> None:
    own = {0: (GONE, 0.55), 4: (RIGHT, 0.95)} | {frame: (GONE, 0.55) for frame in (1, 2, 3)}
    branch = Scripted(own=own, spread={frame: (RIGHT, 0.9) for frame in range(6)})
    _, masks = walk(branch, replace(CAUSAL, is_two_sided=True), [0, 4], 6)
    assert set(masks.values()) == {RIGHT}


def test_causal_masks_do_not_change_with_what_comes_later() -> None:
    branch = shared_branch()
    prompts = {
        frame: 3 * torch.randn(1, 4, WIDTH, generator=torch.Generator().manual_seed(frame)) for frame in (1, 4, 6)
    }
    policy = Dynamic(num_prompted=2, least_confidence=0.0, reprompt_below=0.0)
    frames = random_frames(8)
    later = torch.cat([frames[:5], -frames[5:]])
    with torch.no_grad():
        first, second = (
            dict(
                Updater(policy, Tracker(branch, TrackerConfig()), prompts).run(
                    (at, branch.encode(clip[at : at + 1])) for at in range(8)
                )
            )
            for clip in (frames, later)
        )
    for frame in range(5):
        assert torch.equal(first[frame].mask_logits, second[frame].mask_logits)


def test_what_is_kept_does_not_grow_with_the_video() -> None:
    branch = Scripted(
        own={frame: (LEFT, 0.9) for frame in range(400)}, spread={frame: (LEFT, 0.9) for frame in range(400)}
    )
    updater, _ = walk(branch, CAUSAL, range(0, 400, 8), 400)
    bank = updater.tracker.bank
    assert len(bank.anchors) == CAUSAL.num_prompted
    assert len(bank.recent) <= branch.num_recent
    assert len(bank.pointers) < branch.max_pointers


def test_a_single_admitted_anchor_gives_the_masks_of_the_plain_tracker() -> None:
    branch = shared_branch()
    features = branch.encode(random_frames(6))
    drawn = (3 * torch.randn(1, 4, WIDTH, generator=torch.Generator().manual_seed(seed)) for seed in range(50))
    with torch.no_grad():
        prompt = next(
            prompt
            for prompt in drawn
            if Tracker(branch, TrackerConfig()).prompt(features.take([0]), prompt).object_score > 0
        )
        tracker = Tracker(branch, TrackerConfig())
        plain = dict(track(tracker, plan(range(6), [0]), lambda at: features.take([at]), {0: prompt}))
        updater = Updater(
            Dynamic(least_confidence=0.0, reprompt_below=0.0), Tracker(branch, TrackerConfig()), {0: prompt}
        )
        made = dict(updater.run((at, features.take([at])) for at in range(6)))
    for frame, output in plain.items():
        assert torch.equal(made[frame].mask_logits, output.mask_logits)


def test_trust_and_agreement_are_said_of_presence_and_absence() -> None:
    assert trust(said(LEFT, 0.8)) == pytest.approx(0.8, abs=1e-5)
    assert trust(said(GONE, 0.8)) == pytest.approx(0.8, abs=1e-5)
    assert agreement(said(LEFT, 0.9), said(LEFT, 0.6)) == 1
    assert agreement(said(LEFT, 0.9), said(RIGHT, 0.9)) == 0
    assert agreement(said(GONE, 0.9), said(GONE, 0.9)) == 1
    assert agreement(said(GONE, 0.9), said(LEFT, 0.9)) == 0


def test_without_prompts_or_without_a_look_ahead_nothing_starts() -> None:
    branch = Scripted(own={}, spread={})
    with pytest.raises(RequestError, match="0 frames with prompts were given"):
        Updater(CAUSAL, Tracker(branch, TrackerConfig()), {}, features_of)
    with pytest.raises(RequestError, match="and no features of them were given"):
        Updater(replace(CAUSAL, is_two_sided=True), Tracker(branch, TrackerConfig()), {0: torch.zeros(1, 1, 2)})
