"""Finding and replacing wrong ids."""

import pytest
import torch
from toy_denoisers import TableDenoiser

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.correct import CorrectionRule, correct
from dynin.decoding.decoder import ParallelDecoder
from dynin.decoding.policy import DecodingPolicy
from dynin.errors import ConfigError

MASK = 19
TRUTH = torch.arange(24).view(2, 12) % 10


def setting() -> tuple[ParallelDecoder, Segment]:
    """A denoiser that knows the truth, and a segment of all but the first two columns."""
    target = torch.ones(2, 12, dtype=torch.bool)
    target[:, :2] = False
    policy = DecodingPolicy(num_steps=3)
    segment = Segment(name="codes", is_target=target, allowed_ids=torch.arange(10), policy=policy)
    return ParallelDecoder(TableDenoiser(TRUTH, 20), MASK), segment


def test_wrong_ids_are_found_and_restored_and_calls_are_counted() -> None:
    decoder, segment = setting()
    damaged = TRUTH.clone()
    damaged[0, 5], damaged[1, 2], damaged[1, 11] = 9, 0, 15
    result = correct(
        decoder, Canvas(ids=damaged), segment, CorrectionRule(num_subsets=4), generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(result.ids, TRUTH)
    assert torch.equal(result.is_doubtful, damaged != TRUTH)
    assert result.num_forwards == len(decoder.denoiser.calls) == 4 + 2


def test_a_correct_canvas_is_left_alone() -> None:
    decoder, segment = setting()
    result = correct(decoder, Canvas(ids=TRUTH), segment, CorrectionRule(), generator=torch.Generator().manual_seed(0))
    assert torch.equal(result.ids, TRUTH)
    assert not result.is_doubtful.any()
    assert result.num_forwards == 8


def test_what_is_no_target_is_never_touched() -> None:
    decoder, segment = setting()
    damaged = TRUTH.clone()
    damaged[:, 1] = 7
    result = correct(
        decoder, Canvas(ids=damaged), segment, CorrectionRule(), generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(result.ids, damaged)


def test_each_look_hides_a_different_part_and_all_looks_cover_everything() -> None:
    decoder, segment = setting()
    rule = CorrectionRule(num_subsets=3)
    correct(decoder, Canvas(ids=TRUTH), segment, rule, generator=torch.Generator().manual_seed(1))
    asked = torch.cat(decoder.denoiser.calls)
    assert sorted(asked.tolist()) == segment.is_target.flatten().nonzero().squeeze(1).tolist()


def test_a_wrong_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match="subsets"):
        CorrectionRule(num_subsets=1)
    with pytest.raises(ConfigError, match="ratio"):
        CorrectionRule(ratio=0.0)
