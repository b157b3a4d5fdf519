"""The loop, step by step, with denoisers whose answers are known."""

import pytest
import torch
from torch import Tensor
from toy_denoisers import ContextDenoiser, TableDenoiser

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.decoder import Decoded, ParallelDecoder
from dynin.decoding.policy import DecodingPolicy, published_text
from dynin.decoding.remask import LowConfidenceRemask, VerifyRemask
from dynin.decoding.trace import Trace
from dynin.errors import RequestError

MASK, STOP, NUM_IDS = 19, 18, 20
ALLOWED = torch.arange(19)


def hidden(prompt: list[list[int]], num_new: int, suffix: int = 0) -> tuple[Tensor, Tensor]:
    """Ids and targets: the prompt, hidden places, then `suffix` ids 1."""
    ids = torch.tensor(prompt)
    batch = len(ids)
    ids = torch.cat([ids, torch.full((batch, num_new), MASK), torch.ones(batch, suffix, dtype=torch.int64)], dim=1)
    return ids, ids == MASK


def decode(denoiser, ids: Tensor, target: Tensor, policy: DecodingPolicy, **options) -> Decoded:
    """One segment named "out"."""
    stops = options.pop("stop_ids", ())
    segment = Segment(name="out", is_target=target, allowed_ids=ALLOWED, policy=policy, stop_ids=stops)
    return ParallelDecoder(denoiser, MASK).run(Canvas(ids=ids), [segment], **options)


def test_the_surest_places_are_committed_first_and_only_hidden_rows_are_asked_for() -> None:
    ids, target = hidden([[1, 2]], 4)
    answers = torch.tensor([[0, 0, 3, 4, 5, 6]])
    denoiser = TableDenoiser(answers, NUM_IDS, torch.tensor([[0, 0, 1.0, 4.0, 2.0, 3.0]]))
    result = decode(denoiser, ids, target, DecodingPolicy(num_steps=4))
    assert result.ids.tolist() == [[1, 2, 3, 4, 5, 6]]
    assert [rows.tolist() for rows in denoiser.calls] == [[2, 3, 4, 5], [2, 4, 5], [2, 4], [2]]
    assert result.num_forwards == 4


def test_a_block_is_complete_before_the_next_begins() -> None:
    ids, target = hidden([[1]], 4)
    sureness = torch.tensor([[0, 1.0, 1.0, 9.0, 9.0]])
    denoiser = TableDenoiser(torch.tensor([[0, 3, 4, 5, 6]]), NUM_IDS, sureness)
    decode(denoiser, ids, target, DecodingPolicy(num_steps=4, block_len=2))
    assert [rows.tolist() for rows in denoiser.calls] == [[1, 2], [2], [3, 4], [4]]


def test_given_ids_inside_a_segment_stay() -> None:
    ids, target = hidden([[1]], 3)
    ids[0, 2] = 7
    result = decode(TableDenoiser(torch.tensor([[0, 3, 4, 5]]), NUM_IDS), ids, target, DecodingPolicy(num_steps=8))
    assert result.ids.tolist() == [[1, 3, 7, 5]]
    assert result.num_forwards == 2


def test_a_row_stops_at_its_first_stop_id_and_is_filled_with_it() -> None:
    ids, target = hidden([[1], [2]], 6)
    answers = torch.tensor([[1, 3, 4, STOP, 5, 6, 7], [2, 3, 4, 5, 6, 7, 8]])
    denoiser = TableDenoiser(answers, NUM_IDS)
    result = decode(denoiser, ids, target, DecodingPolicy(num_steps=6, block_len=3), stop_ids=(STOP,))
    assert result.ids[0].tolist() == [1, 3, 4, STOP, STOP, STOP, STOP]
    assert result.answer("out", 0).tolist() == [3, 4]
    assert result.answer("out", 1).tolist() == [3, 4, 5, 6, 7, 8]
    assert result.finish_reasons == ("stop", "length")
    assert [len(ids) for ids in denoiser.seen] == [2, 2, 2, 1, 1, 1]


def test_a_stop_id_waits_for_the_hidden_places_before_it() -> None:
    ids, target = hidden([[1]], 4)
    answers, sureness = torch.tensor([[0, 3, 4, STOP, 6]]), torch.tensor([[0, 1.0, 2.0, 9.0, 0.5]])
    result = decode(
        TableDenoiser(answers, NUM_IDS, sureness), ids, target, DecodingPolicy(num_steps=4), stop_ids=(STOP,)
    )
    assert result.ids.tolist() == [[1, 3, 4, STOP, STOP]]
    assert result.num_forwards == 3


def test_a_canvas_grows_by_blocks_until_the_stop_id() -> None:
    ids, target = hidden([[1]], 2, suffix=2)
    answers = torch.tensor([[0, 3, 4, 5, 6, STOP, 8, 0, 0, 0, 0, 0]])
    policy = DecodingPolicy(num_steps=10, block_len=2, max_len=10)
    result = decode(TableDenoiser(answers, NUM_IDS), ids, target, policy, stop_ids=(STOP,))
    assert result.ids.tolist() == [[1, 3, 4, 5, 6, STOP, STOP, 1, 1]]
    assert result.finish_reasons == ("stop",)
    assert result.num_forwards == 5


def test_a_canvas_ends_at_its_largest_length_with_that_reason() -> None:
    ids, target = hidden([[1]], 1, suffix=1)
    answers = torch.full((1, 12), 3)
    policy = DecodingPolicy(num_steps=3, block_len=2, max_len=6)
    result = decode(TableDenoiser(answers, NUM_IDS), ids, target, policy, stop_ids=(STOP,))
    assert result.ids.tolist() == [[1, 3, 3, 3, 3, 3, 3, 1]]
    assert result.finish_reasons == ("length",)


def test_segments_are_decoded_in_order_each_seeing_the_one_before() -> None:
    ids = torch.tensor([[1, MASK, MASK, 2, MASK]])
    first = torch.tensor([[False, True, True, False, False]])
    second = torch.tensor([[False, False, False, False, True]])
    policy = DecodingPolicy(num_steps=1)
    denoiser = TableDenoiser(torch.tensor([[0, 3, 4, 0, 5]]), NUM_IDS)
    segments = [
        Segment(name="text", is_target=second, allowed_ids=ALLOWED, policy=policy),
        Segment(name="image", is_target=first, allowed_ids=ALLOWED[:5], policy=policy),
    ]
    result = ParallelDecoder(denoiser, MASK).run(Canvas(ids=ids), segments)
    assert result.answer("text", 0).tolist() == [5]
    assert result.answer("image", 0).tolist() == [3, 4]
    assert denoiser.seen[1].tolist() == [[1, MASK, MASK, 2, 5]]


def test_guidance_runs_both_branches_in_one_call_with_the_same_targets() -> None:
    ids, target = hidden([[1, 2]], 2)
    denoiser = TableDenoiser(torch.tensor([[0, 0, 3, 4]]), NUM_IDS, torch.tensor([[0, 0, 2.0, 1.0]]))
    segment = Segment(
        name="out", is_target=target, allowed_ids=ALLOWED, policy=DecodingPolicy(num_steps=2, guidance_scale=1.0)
    )
    uncond = torch.tensor([[0, 0, 0, 0]])
    result = ParallelDecoder(denoiser, MASK).run(Canvas(ids=ids, uncond_ids=uncond), [segment])
    assert denoiser.seen[1].tolist() == [[1, 2, 3, MASK], [0, 0, 3, MASK]]
    assert result.num_forwards == 2


def test_sure_proposals_beyond_the_quota_save_steps() -> None:
    ids, target = hidden([[1]], 4)
    sureness = torch.tensor([[0, 9.0, 9.0, 9.0, 1.0]])
    denoiser = TableDenoiser(torch.tensor([[0, 3, 4, 5, 6]]), NUM_IDS, sureness)
    result = decode(denoiser, ids, target, DecodingPolicy(num_steps=4, threshold=0.9))
    assert result.num_forwards == 2


def test_every_step_is_observed() -> None:
    ids, target = hidden([[1]], 4)
    trace = Trace()
    policy = DecodingPolicy(num_steps=4, remask=LowConfidenceRemask(fraction=0.25, start=0.0))
    result = decode(ContextDenoiser(NUM_IDS), ids, target, policy, observer=trace)
    steps = trace.of("out")
    assert [step.index for step in steps] == list(range(result.num_forwards))
    assert steps[-1].ids.tolist() == [result.answer("out", 0).tolist()]
    for before, after in zip(steps, steps[1:], strict=False):
        changed = (before.ids != after.ids) & ~after.is_remasked
        assert torch.equal(changed, after.is_committed)
    assert sum(int(step.is_remasked.sum()) for step in steps) > 0


def test_verification_corrects_what_was_committed_too_early() -> None:
    class SecondThoughts(TableDenoiser):
        """Sure of 3 at the first place until the second is known; then sure of 5."""

        def __call__(self, ids: Tensor, attend: Tensor | None, rows: Tensor, allowed: Tensor | None) -> Tensor:
            logits = super().__call__(ids, attend, rows, allowed)
            logits[(rows == 1) & (ids[0, 2] == 4), 5] = 20.0
            return logits

    ids, target = hidden([[1]], 4)
    answers, sureness = torch.tensor([[0, 3, 4, 6, 7]]), torch.tensor([[0, 9.0, 8.0, 2.0, 1.0]])
    plain = decode(SecondThoughts(answers, NUM_IDS, sureness), ids, target, DecodingPolicy(num_steps=4))
    rule = VerifyRemask(bar=0.5, share=0.0)
    verified = decode(SecondThoughts(answers, NUM_IDS, sureness), ids, target, DecodingPolicy(num_steps=4, remask=rule))
    assert plain.ids.tolist() == [[1, 3, 4, 6, 7]]
    assert verified.ids.tolist() == [[1, 5, 4, 6, 7]]
    assert verified.num_forwards == plain.num_forwards


def test_places_to_be_verified_are_hidden_from_the_pass_and_put_back_when_they_stand() -> None:
    ids, target = hidden([[1]], 3)
    denoiser = TableDenoiser(torch.tensor([[1, 3, 4, 5]]), NUM_IDS, torch.tensor([[0, 9.0, 8.0, 7.0]]))
    policy = DecodingPolicy(num_steps=3, remask=VerifyRemask(bar=0.5, share=1.0))
    result = decode(denoiser, ids, target, policy)
    assert [seen.tolist() for seen in denoiser.seen] == [
        [[1, MASK, MASK, MASK]],
        [[1, MASK, MASK, MASK]],
        [[1, 3, 4, MASK]],
    ]
    assert result.ids.tolist() == [[1, 3, 4, 5]]


def test_stop_ids_can_be_revealed_last() -> None:
    ids, target = hidden([[1]], 3)
    answers, sureness = torch.tensor([[0, 3, 4, STOP]]), torch.tensor([[0, 1.0, 2.0, 9.0]])
    denoiser = TableDenoiser(answers, NUM_IDS, sureness)
    decode(denoiser, ids, target, DecodingPolicy(num_steps=3, defer_stops=True), stop_ids=(STOP,))
    assert [rows.tolist() for rows in denoiser.calls] == [[1, 2, 3], [1, 3], [3]]


def test_the_published_mode_may_leave_a_place_hidden() -> None:
    ids, target = hidden([[1]], 2)
    denoiser = TableDenoiser(torch.tensor([[0, MASK, 4]]), NUM_IDS)
    segment = Segment(
        name="out",
        is_target=target,
        allowed_ids=None,
        policy=published_text(num_new=2, num_steps=2, block_len=2),
    )
    result = ParallelDecoder(denoiser, MASK).run(Canvas(ids=ids), [segment])
    assert result.ids.tolist() == [[1, MASK, MASK]]


def test_the_canvas_passed_in_is_left_alone() -> None:
    ids, target = hidden([[1]], 3)
    before = ids.clone()
    decode(ContextDenoiser(NUM_IDS), ids, target, DecodingPolicy(num_steps=2))
    assert torch.equal(ids, before)


def test_a_row_without_targets_is_returned_as_it_is() -> None:
    ids, target = hidden([[1], [2]], 2)
    ids[1, 1:], target[1] = 5, False
    result = decode(ContextDenoiser(NUM_IDS), ids, target, DecodingPolicy(num_steps=2))
    assert result.ids[1].tolist() == [2, 5, 5]


@pytest.mark.parametrize("allowed", [None, torch.arange(NUM_IDS)])
def test_a_segment_that_allows_the_mask_id_is_refused(allowed: Tensor | None) -> None:
    ids, target = hidden([[1]], 2)
    segment = Segment(name="out", is_target=target, allowed_ids=allowed, policy=DecodingPolicy(num_steps=2))
    with pytest.raises(RequestError, match="the mask id"):
        ParallelDecoder(ContextDenoiser(NUM_IDS), MASK).run(Canvas(ids=ids), [segment])


def test_guidance_without_unconditional_ids_is_refused() -> None:
    ids, target = hidden([[1]], 2)
    with pytest.raises(RequestError, match="no uncond_ids"):
        decode(ContextDenoiser(NUM_IDS), ids, target, DecodingPolicy(num_steps=2, guidance_scale=1.0))


def test_targets_of_another_shape_are_refused() -> None:
    ids, target = hidden([[1]], 2)
    with pytest.raises(RequestError, match="companion"):
        decode(ContextDenoiser(NUM_IDS), ids, target[:, 1:], DecodingPolicy(num_steps=2))
