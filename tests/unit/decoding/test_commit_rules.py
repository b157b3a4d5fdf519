"""Rules that reveal more than planned: by hand, against their definitions, and what holds for all of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_denoisers import ChainDenoiser, TableDenoiser

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.decoder import ParallelDecoder
from dynin.decoding.guidance import Resting
from dynin.decoding.parallel import Apart, EntropyBound, Factor, Joint, Offer, Threshold
from dynin.decoding.policy import Ahead, DecodingPolicy
from dynin.decoding.remask import VerifyRemask
from dynin.decoding.trace import Trace
from dynin.errors import ConfigError

MASK, STOP, NUM_IDS = 19, 18, 20
RULES = [Threshold(bar=0.5), Factor(factor=1.5), Joint(bar=0.3), EntropyBound(bound=1.0)]
RULES += [Apart(rule=rule, gap=gap) for rule in RULES for gap in (1, 3)]


def offer(prob: list[list[float]], entropy: list[list[float]] | None = None, shown: tuple[int, ...] = ()) -> Offer:
    """Proposals of some places; those in `shown` are visible already."""
    table = torch.tensor(prob)
    is_masked = torch.ones_like(table, dtype=torch.bool)
    is_masked[:, list(shown)] = False
    return Offer(is_masked, table, torch.zeros_like(table) if entropy is None else torch.tensor(entropy))


def chosen(rule, proposals: Offer) -> list[list[int]]:
    return [row.nonzero().squeeze(1).tolist() for row in rule.choose(proposals)]


def test_a_threshold_takes_what_reaches_it():
    assert chosen(Threshold(bar=0.8), offer([[0.9, 0.8, 0.7], [0.1, 0.1, 0.95]])) == [[0, 1], [2]]


def test_a_factor_wants_more_of_each_the_more_there_are():
    # (n + 1)(1 - p): 2 x 0.1, 3 x 0.2, 4 x 0.3 against 1
    assert chosen(Factor(factor=1.0), offer([[0.8, 0.7, 0.9]])) == [[0, 2]]
    assert chosen(Factor(factor=1.3), offer([[0.8, 0.7, 0.9]])) == [[0, 1, 2]]


def test_all_are_right_together_with_the_joint_probability():
    assert chosen(Joint(bar=0.7), offer([[0.8, 0.5, 0.9]])) == [[0, 2]]  # 0.9, 0.72, 0.36


def test_entropies_but_the_largest_stay_below_the_bound():
    spread = offer([[0.5] * 4], [[0.3, 0.05, 2.0, 0.1]])  # in order: 0, 0.05, 0.15, 0.45
    assert chosen(EntropyBound(bound=0.2), spread) == [[0, 1, 3]]
    assert chosen(EntropyBound(bound=0.0), spread) == [[1]]


def test_of_neighbours_the_surest_is_taken():
    proposals = offer([[0.9, 0.95, 0.9, 0.2, 0.8]])
    assert chosen(Apart(rule=Threshold(bar=0.7)), proposals) == [[1, 4]]
    assert chosen(Apart(rule=Threshold(bar=0.7), gap=3), proposals) == [[1]]
    spread = offer([[0.5] * 4], [[0.3, 0.05, 2.0, 0.1]])
    assert chosen(Apart(rule=EntropyBound(bound=0.2)), spread) == [[1, 3]]
    assert chosen(Apart(rule=Threshold(bar=0.7)), offer([[0.8] * 5])) == [[0]]  # the first of equals counts as surest


def test_visible_places_are_left_alone():
    proposals = offer([[0.99, 0.98, 0.97]], [[0.0, 0.0, 0.0]], shown=(0, 2))
    assert all(chosen(rule, proposals) == [[1]] for rule in RULES)


@st.composite
def offers(draw: st.DrawFn) -> Offer:
    """Logits of any sharpness, and what follows from them."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    batch, width = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    logits = torch.randn(batch * width, 7, generator=generator) * draw(st.sampled_from([0.1, 2.0, 10.0]))
    is_masked = torch.rand(batch, width, generator=generator) < draw(st.sampled_from([0.3, 1.0]))
    prob = logits.softmax(dim=1).amax(dim=1).view(batch, width)
    return Offer(is_masked, prob, torch.distributions.Categorical(logits=logits).entropy().view(batch, width))


@given(offers())
@settings(deadline=None, max_examples=60)
def test_only_hidden_places_are_revealed_and_looser_rules_reveal_more(proposals):
    for tight, loose in (
        (Threshold(bar=0.9), Threshold(bar=0.5)),
        (Factor(factor=0.5), Factor(factor=2.0)),
        (Joint(bar=0.9), Joint(bar=0.3)),
        (EntropyBound(bound=0.1), EntropyBound(bound=2.0)),
    ):
        few, many = tight.choose(proposals), loose.choose(proposals)
        assert not (many & ~proposals.is_masked).any()
        assert not (few & ~many).any()


@given(offers())
@settings(deadline=None, max_examples=60)
def test_a_row_is_treated_alone_as_in_a_batch(proposals):
    for rule in RULES:
        together = rule.choose(proposals)
        for row in range(len(together)):
            one = slice(row, row + 1)
            alone = Offer(proposals.is_masked[one], proposals.prob[one], proposals.entropy[one])
            assert torch.equal(rule.choose(alone), together[one])


@given(offers(), st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_what_is_revealed_apart_is_the_rules_own_and_lies_apart(proposals, gap):
    for rule in (Threshold(bar=0.3), EntropyBound(bound=2.0)):
        all_of_them, made = rule.choose(proposals), Apart(rule=rule, gap=gap).choose(proposals)
        assert not (made & ~all_of_them).any()
        for row in range(len(made)):
            places = made[row].nonzero().squeeze(1)
            assert (places.diff() > gap).all()
            assert bool(made[row].any()) == bool(all_of_them[row].any())


@given(offers(), st.floats(0.1, 3.0))
@settings(deadline=None, max_examples=60)
def test_a_factor_reveals_the_longest_list_that_its_inequality_allows(proposals, factor):
    made = Factor(factor=factor).choose(proposals)
    for row in range(len(made)):
        prob = proposals.prob[row][proposals.is_masked[row]].sort(descending=True).values.tolist()
        fitting = [n for n in range(1, len(prob) + 1) if (n + 1) * (1 - prob[n - 1]) < factor]
        assert int(made[row].sum()) == max(fitting, default=0)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda: Threshold(bar=1.2), "bar is 1.2"),
        (lambda: Threshold(bar=0.0), "bar is 0.0"),
        (lambda: Joint(bar=-1.0), "bar is -1.0"),
        (lambda: Factor(factor=0.0), "factor is 0.0"),
        (lambda: EntropyBound(bound=float("nan")), "bound is nan"),
        (lambda: Apart(rule=Joint(), gap=0), "gap is 0"),
        (lambda: Ahead(num_blocks=0), "num_blocks is 0"),
        (lambda: Ahead(bar=2.0), "bar is 2.0"),
        (lambda: DecodingPolicy(num_steps=4, threshold=0.9, commit=Joint()), "threshold 0.9 and commit Joint"),
        (lambda: DecodingPolicy(num_steps=4, ahead=Ahead()), "block_len is None"),
        (lambda: DecodingPolicy(num_steps=4, order="hilbert"), "unknown order 'hilbert'"),
        (lambda: DecodingPolicy(num_steps=4, order="halton", noise_temperature=1.0), "noise_temperature 1.0"),
        (lambda: DecodingPolicy(num_steps=4, guidance_every=2), "guidance_scale is 0"),
        (lambda: DecodingPolicy(num_steps=4, guidance_scale=1.0, guidance_every=0), "guidance_every is 0"),
        (lambda: DecodingPolicy(num_steps=4, compat="published", commit=Joint()), "commit Joint"),
        (lambda: DecodingPolicy(num_steps=4, block_len=3, max_len=8), "max_len is 8 and block_len 3"),
        (lambda: DecodingPolicy(num_steps=9, block_len=4, max_len=8), "num_steps is 9, but .* max_len 8"),
        (
            lambda: DecodingPolicy(num_steps=4, guidance_scale=1.0, guidance_every=2, guidance_interval=(0.5, 1.0)),
            r"guidance_every is 2, .* guidance_interval \(0.5, 1.0\)",
        ),
    ],
)
def test_rules_that_cannot_be_or_contradict_each_other_are_refused_with_both_values(wrong, named):
    with pytest.raises(ConfigError, match=named):
        wrong()


# ---- in the decoder --------------------------------------------------------------------------------------------------


def decode(
    denoiser, policy: DecodingPolicy, num_new: int, *, stop_ids: tuple[int, ...] = (), trace: Trace | None = None
):
    ids = torch.tensor([[1] + [MASK] * num_new])
    segment = Segment(name="out", is_target=ids == MASK, allowed_ids=torch.arange(19), policy=policy, stop_ids=stop_ids)
    return ParallelDecoder(denoiser, MASK).run(Canvas(ids=ids), [segment], observer=trace)


def test_a_rule_reveals_beyond_the_plan():
    denoiser = TableDenoiser(torch.tensor([[0, 3, 4, 5, 6]]), NUM_IDS, torch.tensor([[0, 9.0, 9.0, 9.0, 1.0]]))
    result = decode(denoiser, DecodingPolicy(num_steps=4, commit=Threshold(bar=0.9)), 4)
    assert result.num_forwards == 2
    assert result.ids.tolist() == [[1, 3, 4, 5, 6]]


def test_what_is_sure_in_the_next_block_is_revealed_before_its_turn_and_what_is_not_waits():
    sureness = torch.tensor([[0, 1.0, 2.0, 9.0, 1.0, 1.0, 1.0]])
    denoiser = TableDenoiser(torch.tensor([[0, 3, 4, 5, 6, 7, 8]]), NUM_IDS, sureness)
    policy = DecodingPolicy(num_steps=6, block_len=2, ahead=Ahead(bar=0.9))
    trace = Trace()
    result = decode(denoiser, policy, 6, trace=trace)
    assert [rows.tolist() for rows in denoiser.calls] == [[1, 2, 3, 4], [1, 4], [4, 5, 6], [5, 6], [6]]
    assert [step.block for step in trace.steps] == [0, 0, 1, 2, 2]
    assert result.ids.tolist() == [[1, 3, 4, 5, 6, 7, 8]]


def test_a_growing_canvas_shows_the_blocks_that_are_looked_at():
    answers = torch.tensor([[0, 3, 4, 5, STOP, 7, 8, 0, 0]])
    policy = DecodingPolicy(num_steps=8, block_len=2, max_len=8, ahead=Ahead(bar=1.0))
    denoiser = TableDenoiser(answers, NUM_IDS)
    result = decode(denoiser, policy, 2, stop_ids=(STOP,))
    assert result.answer("out", 0).tolist() == [3, 4, 5]
    assert denoiser.seen[0].shape[1] == 1 + 4


def test_a_low_bar_with_verification_is_better_than_the_low_bar_alone_on_a_chain():
    """WINO: what was revealed too early is doubted by a later pass; the chain's posteriors are exact."""
    chain = ChainDenoiser(num_states=6, seed=3)
    ids = torch.full((24, 20), chain.mask_id)
    ids[:, 0] = torch.arange(24) % 6

    def likelihood(policy: DecodingPolicy) -> float:
        segment = Segment(name="out", is_target=ids == chain.mask_id, allowed_ids=torch.arange(6), policy=policy)
        made = ParallelDecoder(chain, chain.mask_id).run(Canvas(ids=ids), [segment])
        return chain.log_likelihood(made.ids)

    bare = DecodingPolicy(num_steps=19, commit=Threshold(bar=0.3))
    checked = DecodingPolicy(num_steps=19, commit=Threshold(bar=0.3), remask=VerifyRemask(bar=0.9))
    assert likelihood(checked) > likelihood(bare)


def test_nothing_is_asked_of_places_behind_an_end_where_that_is_wanted():
    answers, sureness = torch.tensor([[0, 3, 4, STOP, 6, 7]]), torch.tensor([[0, 1.0, 2.0, 9.0, 0.5, 0.4]])
    asked = {}
    for early in (False, True):
        denoiser = TableDenoiser(answers, NUM_IDS, sureness)
        result = decode(denoiser, DecodingPolicy(num_steps=5, early_stop=early), 5, stop_ids=(STOP,))
        assert result.ids.tolist() == [[1, 3, 4, STOP, STOP, STOP]]
        asked[early] = [rows.tolist() for rows in denoiser.calls]
    assert asked[False] == [[1, 2, 3, 4, 5], [1, 2, 4, 5], [1, 4, 5]]
    assert asked[True] == [[1, 2, 3, 4, 5], [1, 2], [1]]


def test_with_a_rule_an_interval_of_guidance_counts_places_that_are_known():
    """Half of the places are known after the first of four planned steps, so the second one is guided."""
    ids = torch.tensor([[1, MASK, MASK, MASK, MASK]])
    denoiser = TableDenoiser(torch.tensor([[1, 3, 4, 5, 6]]), NUM_IDS, torch.tensor([[0, 9.0, 9.0, 2.0, 1.0]]))
    policy = DecodingPolicy(num_steps=4, guidance_scale=1.0, guidance_interval=(0.5, 1.0), commit=Threshold(bar=0.9))
    segment = Segment(name="out", is_target=ids == MASK, allowed_ids=torch.arange(19), policy=policy)
    ParallelDecoder(denoiser, MASK).run(Canvas(ids=ids, uncond_ids=ids), [segment])
    assert [len(seen) for seen in denoiser.seen] == [1, 2, 2]


def test_a_place_that_was_visible_when_guidance_last_asked_is_not_guided():
    kept = Resting(0, 2, torch.tensor([4, 1]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    logits, scale = kept.at(torch.tensor([1, 3, 4]), torch.tensor([1.5, 1.5, 1.5]))
    assert logits[[0, 2]].tolist() == [[3.0, 4.0], [1.0, 2.0]]
    assert scale.tolist() == [1.5, 0.0, 1.5]
    assert kept.covers(1)
    assert not kept.covers(2)


def test_guidance_that_rests_asks_without_condition_every_other_time_and_uses_what_was_said():
    class Counting(TableDenoiser):
        def __call__(self, ids, attend, rows, allowed):
            logits = super().__call__(ids, attend, rows, allowed)
            return torch.where(ids.flatten()[rows - rows % ids.shape[1]][:, None] == 2, logits.roll(1, 1), logits)

    ids = torch.tensor([[1, MASK, MASK, MASK, MASK]])
    answers, sureness = torch.tensor([[1, 3, 4, 5, 6]]), torch.tensor([[0, 4.0, 3.0, 2.0, 1.0]])
    made = {}
    for every in (1, 2):
        denoiser = Counting(answers, NUM_IDS, sureness)
        policy = DecodingPolicy(num_steps=4, guidance_scale=1.0, guidance_every=every)
        segment = Segment(name="out", is_target=ids == MASK, allowed_ids=torch.arange(19), policy=policy)
        canvas = Canvas(ids=ids, uncond_ids=torch.full_like(ids, 2))
        made[every] = ParallelDecoder(denoiser, MASK).run(canvas, [segment])
        assert [len(seen) for seen in denoiser.seen] == ([2] * 4 if every == 1 else [2, 1, 2, 1])
    assert torch.equal(made[1].ids, made[2].ids)  # the table's answers do not change between steps
