"""The tracker: equal to the library's own loop where that can go, differentiable where it cannot."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dynin.errors import ConfigError
from dynin.virst.branch.build import small_config
from dynin.virst.branch.protocol import MaskOutput
from dynin.virst.branch.sam2 import Sam2Branch
from dynin.virst.tracker import ClipFeatures, Step, Tracker, TrackerConfig, nearest_anchors, plan, track
from tests.tiny_branch import (
    IMAGE_PX,
    WIDTH,
    edgetam_config,
    make_branch,
    random_frames,
    sam2_config,
    sam3_config,
    shared_branch,
    transformers,
)

NUM_FRAMES = 20
FINE = small_config(IMAGE_PX, width=WIDTH, hiera_width=8) | {"mask_downsampler_total_stride": 16}
"""In the library's own loop a mask is always enlarged to 16 times the cells, whatever the network shrinks it by."""
SAM2_RULES = TrackerConfig(num_attended=2, choice="best", are_anchors_binary=True, is_memory_halved=True)
"""What the library does in evaluation."""


def point(at: tuple[float, float]) -> dict[str, Tensor]:
    return {
        "point_coords": torch.tensor(at).reshape(1, 1, 1, 2),
        "point_labels": torch.ones(1, 1, 1, dtype=torch.int32),
    }


def token(branch: Sam2Branch, prompt: dict[str, Tensor]) -> Tensor:
    sparse, _ = branch.network.prompt_encoder(
        input_points=prompt["point_coords"], input_labels=prompt["point_labels"], input_boxes=None, input_masks=None
    )
    return sparse[:, 0]


def tracked_score(branch: Sam2Branch, frames: Tensor, prompt: dict[str, Tensor]) -> float:
    features = branch.encode(frames[:1])
    return float(Tracker(branch, SAM2_RULES).prompt(features, token(branch, prompt)).object_score)


def by_library(
    branch: Sam2Branch, frames: Tensor, prompts: dict[int, dict[str, Tensor]], *, is_reverse: bool
) -> dict[int, tuple[Tensor, Tensor]]:
    """Masks and object scores that the library's own video loop makes of clicks."""
    mean = torch.tensor(branch.family.mean)[:, None, None]
    std = torch.tensor(branch.family.std)[:, None, None]
    session = getattr(transformers, branch.family.class_name.replace("Model", "InferenceSession"))(
        video=(frames * 0.5 + 0.5 - mean) / std, video_height=IMAGE_PX, video_width=IMAGE_PX, dtype=frames.dtype
    )
    branch.network.config.max_cond_frame_num = SAM2_RULES.num_attended
    index = session.obj_id_to_idx(1)
    made = {}
    for frame, prompt in prompts.items():
        session.add_point_inputs(index, frame, prompt)
        session.obj_with_new_inputs = [1]
        made[frame] = branch.network(session, frame_idx=frame)
    for frame in reversed(range(len(frames))) if is_reverse else range(len(frames)):
        made[frame] = branch.network(session, frame_idx=frame, reverse=is_reverse)
    return {frame: (found.pred_masks[0, 0], found.object_score_logits[0]) for frame, found in made.items()}


@pytest.mark.parametrize("is_reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize(
    "values",
    [sam2_config(), FINE, edgetam_config(), sam3_config()],
    ids=["sam2", "fine", "edgetam", "sam3"],
)
def test_the_tracker_equals_the_loop_of_transformers_with_points(values: dict[str, Any], is_reverse: bool) -> None:
    branch = make_branch(values).eval().double()  # so that rounding to bfloat16 falls alike
    rules = replace(SAM2_RULES, is_memory_halved=branch.family.model_type != "edgetam_video")
    frames = random_frames(NUM_FRAMES).double()
    prompts = {3: point((9.0, 20.0)), 10: point((55.0, 4.0)), 12: point((32.0, 30.0)), 17: point((2.0, 60.0))}
    with torch.no_grad():
        middle = [tracked_score(branch, frames, prompt) for prompt in prompts.values()]
        branch.network.mask_decoder.pred_obj_score_head.proj_out.bias -= sum(middle) / len(middle)
    expected = by_library(branch, frames, prompts, is_reverse=is_reverse)
    direction = -1 if is_reverse else 1
    rest = [frame for frame in range(NUM_FRAMES) if frame not in prompts][::direction]
    steps = [Step(frame=frame, is_anchor=True) for frame in prompts]
    steps += [Step(frame=frame, direction=direction) for frame in rest]
    with torch.no_grad():
        clip = ClipFeatures(features=branch.encode(frames), num_frames=NUM_FRAMES, videos=(0,))
        tracker = Tracker(branch, rules)
        tokens = {frame: token(branch, prompt) for frame, prompt in prompts.items()}
        made = dict(track(tracker, steps, clip, tokens))
    assert {bool(score > 0) for _, score in expected.values()} == {True, False}, "both kinds of frames must occur"
    for frame, (mask, score) in expected.items():
        torch.testing.assert_close(made[frame].object_score, score, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(made[frame].gated_logits()[0], mask, atol=1e-6, rtol=1e-6)


def run(branch: Sam2Branch, frames: Tensor, prompts: dict[int, Tensor], config: TrackerConfig) -> dict[int, MaskOutput]:
    rows = len(next(iter(prompts.values())))
    clip = ClipFeatures(features=branch.encode(frames), num_frames=len(frames), videos=(0,) * rows)
    return dict(track(Tracker(branch, config), plan(range(len(frames)), list(prompts)), clip, prompts))


def test_gradients_flow_from_a_late_mask_into_the_prompts_and_into_every_part_that_learns() -> None:
    branch = make_branch(sam2_config())
    prompts = torch.randn(1, 5, WIDTH, generator=torch.Generator().manual_seed(2), requires_grad=True)
    outputs = run(branch, random_frames(4), {0: prompts}, TrackerConfig(gate="soft"))
    loss = (
        outputs[3].gated_logits("soft").square().mean() + outputs[3].predicted_iou.sum() + outputs[3].confidence.sum()
    )
    loss.backward()
    assert prompts.grad is not None
    assert prompts.grad.abs().max() > 0
    learning = {name: value for name, value in branch.named_parameters() if value.requires_grad}
    assert [name for name, value in learning.items() if value.grad is None] == []


def test_no_memory_is_made_that_no_frame_looks_at(monkeypatch: pytest.MonkeyPatch) -> None:
    branch, remembered = shared_branch(), []
    remember = Sam2Branch.remember

    def counted(self: Sam2Branch, *given: Any, **more: Any) -> Any:
        remembered.append(1)
        return remember(self, *given, **more)

    monkeypatch.setattr(Sam2Branch, "remember", counted)
    prompt = torch.randn(1, 2, WIDTH, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        run(branch, random_frames(1), {0: prompt}, TrackerConfig())
        assert not remembered
        run(branch, random_frames(4), {0: prompt}, TrackerConfig())
    assert len(remembered) == 3


def test_rows_of_a_batch_answer_as_they_do_alone() -> None:
    branch = shared_branch()
    prompts = torch.randn(3, 2, WIDTH, generator=torch.Generator().manual_seed(3)) * 4
    with torch.no_grad():
        together = run(branch, random_frames(5), {1: prompts, 3: prompts.flip(1)}, TrackerConfig())
        alone = run(branch, random_frames(5), {1: prompts[1:2], 3: prompts[1:2].flip(1)}, TrackerConfig())
    for frame, output in alone.items():
        torch.testing.assert_close(together[frame].mask_logits[1:2], output.mask_logits, atol=1e-5, rtol=1e-4)


def test_where_every_frame_is_an_anchor_training_and_inference_agree_up_to_the_gate() -> None:
    branch = shared_branch()
    prompts = {frame: torch.randn(1, 4, WIDTH, generator=torch.Generator().manual_seed(frame)) for frame in range(4)}
    with torch.no_grad():
        hard = run(branch, random_frames(4), prompts, TrackerConfig(gate="hard"))
        soft = run(branch, random_frames(4), prompts, TrackerConfig(gate="soft"))
    for frame in prompts:
        torch.testing.assert_close(hard[frame].mask_logits, soft[frame].mask_logits)


def test_forgetting_what_is_too_far_back_changes_nothing() -> None:
    branch = shared_branch()
    frames = random_frames(NUM_FRAMES + 4)
    prompt = torch.randn(1, 4, WIDTH, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        whole = run(branch, frames, {0: prompt}, TrackerConfig())
        tracker = Tracker(branch, TrackerConfig())
        clip = ClipFeatures(features=branch.encode(frames), num_frames=len(frames), videos=(0,))
        for frame, output in track(tracker, plan(range(len(frames)), [0]), clip, {0: prompt}):
            tracker.forget(frame + 1)
            torch.testing.assert_close(output.mask_logits, whole[frame].mask_logits)
    last = NUM_FRAMES + 3
    assert sorted(tracker.bank.recent) == list(range(last + 1 - branch.num_recent, last))  # the last is not remembered
    assert sorted(tracker.bank.pointers) == list(range(last + 2 - branch.max_pointers, last))


def test_a_dismissed_anchor_counts_as_an_ordinary_frame() -> None:
    branch = shared_branch()
    features = branch.encode(random_frames(3))
    prompt = torch.randn(1, 4, WIDTH, generator=torch.Generator().manual_seed(5))
    tracker = Tracker(branch, TrackerConfig())
    with torch.no_grad():
        for frame in (0, 1):
            tracker.admit(frame, features.take([frame]), tracker.prompt(features.take([frame]), prompt))
        before = tracker.propagate(2, features.take([2]))
        tracker.dismiss(1)
        after = tracker.propagate(2, features.take([2]))
    assert list(tracker.bank.anchors) == [0]
    assert 1 in tracker.bank.recent
    assert not torch.equal(before.mask_logits, after.mask_logits)


def test_a_frame_without_any_memory_is_refused() -> None:
    branch = shared_branch()
    with pytest.raises(ValueError, match="frame 2 has no memory to look at; admit an anchor first"):
        Tracker(branch, TrackerConfig()).propagate(2, branch.encode(random_frames(1)))


def test_more_recent_frames_than_the_branch_can_tell_apart_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_recent is 9, the mask branch tells 6 recent frames apart; lower it"):
        Tracker(shared_branch(), TrackerConfig(num_recent=9))
    with pytest.raises(ConfigError, match="num_attended is 0"):
        replace(TrackerConfig(), num_attended=0)


@pytest.mark.parametrize(
    ("frame", "count", "expected"),
    [
        (15, 3, [13, 18, 9]),
        (13, 3, [9, 13, 18]),
        (0, 3, [0, 4, 9]),
        (31, 3, [27, 31, 22]),
        (40, 3, [31, 27, 22]),
        (15, 1, [13]),
        (15, None, [0, 4, 9, 13, 18, 22, 27, 31]),
    ],
)
def test_the_nearest_anchors_are_one_behind_one_ahead_and_then_by_distance(
    frame: int, count: int | None, expected: list[int]
) -> None:
    assert nearest_anchors([0, 4, 9, 13, 18, 22, 27, 31], frame, count) == expected


@given(
    anchors=st.lists(st.integers(0, 60), unique=True, min_size=1, max_size=9),
    frame=st.integers(0, 60),
    count=st.integers(1, 9),
)
def test_as_many_anchors_as_there_are_and_may_be_are_attended(anchors: list[int], frame: int, count: int) -> None:
    chosen = nearest_anchors(anchors, frame, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(anchors))
    assert set(chosen) <= set(anchors)


@given(anchors=st.sets(st.integers(0, 11), min_size=1), propagation=st.sampled_from(["forward", "reached", "nearest"]))
def test_a_plan_visits_every_frame_once_and_never_before_an_anchor(anchors: set[int], propagation: str) -> None:
    steps = plan(range(12), sorted(anchors), propagation)
    assert sorted(step.frame for step in steps) == list(range(12))
    assert {step.frame for step in steps if step.is_anchor} == anchors
    assert steps[0].is_anchor


def test_from_the_nearest_anchor_frames_are_reached_in_both_directions() -> None:
    steps = plan(range(9), [2, 6], "nearest")
    assert [step.frame for step in steps] == [2, 6, 3, 4, 7, 8, 5, 1, 0]
    assert [step.direction for step in steps] == [1, 1, 1, 1, 1, 1, -1, -1, -1]


def test_a_plan_without_anchors_or_with_foreign_ones_is_refused() -> None:
    for anchors in ([], [9]):
        with pytest.raises(ValueError, match="expected at least one of the frames"):
            plan(range(4), anchors)
