"""Laws of decoding that hold for every canvas, policy and seed."""

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toy_denoisers import ContextDenoiser

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.commit import plan_remaining
from dynin.decoding.decoder import Decoded, ParallelDecoder
from dynin.decoding.parallel import Apart, EntropyBound, Factor, Joint, Threshold
from dynin.decoding.policy import Ahead, DecodingPolicy
from dynin.decoding.remask import LowConfidenceRemask, RemaskRule, VerifyRemask
from dynin.decoding.trace import Trace

NUM_IDS, MASK = 24, 23
ALLOWED = torch.arange(8, 22)
STOPS = (20, 21)

rules = st.one_of(
    st.none(),
    st.builds(
        LowConfidenceRemask,
        fraction=st.floats(0.05, 1.0),
        start=st.sampled_from([0.0, 0.5]),
        refine=st.sampled_from([0.0, 0.4]),
        max_times=st.integers(1, 3),
    ),
    st.builds(
        VerifyRemask, bar=st.floats(0.1, 1.0), share=st.sampled_from([0.0, 0.3, 1.0]), max_times=st.integers(1, 3)
    ),
)

commits = st.one_of(
    st.none(),
    st.builds(Threshold, bar=st.floats(0.05, 1.0)),
    st.builds(Factor, factor=st.floats(0.1, 5.0)),
    st.builds(Joint, bar=st.floats(0.05, 1.0)),
    st.builds(EntropyBound, bound=st.floats(0.0, 5.0)),
    st.builds(Apart, rule=st.builds(EntropyBound, bound=st.floats(0.0, 5.0)), gap=st.integers(1, 3)),
)


@st.composite
def policies(draw: st.DrawFn, *, is_greedy: bool = False, rule: st.SearchStrategy[RemaskRule | None] = rules):
    """Any policy on a canvas that does not grow."""
    block_len = draw(st.sampled_from([None, 1, 3, 4]))
    threshold = draw(st.sampled_from([None, 0.3]))
    return DecodingPolicy(
        num_steps=draw(st.integers(1, 20)),
        block_len=block_len,
        temperature=0.0 if is_greedy else draw(st.sampled_from([0.0, 1.0])),
        score=draw(st.sampled_from(["confidence", "margin", "entropy"] + ([] if is_greedy else ["random"]))),
        schedule=draw(st.sampled_from(["uniform", "cosine", "linear", "pow2", "sigmoid"])),
        threshold=threshold,
        commit=draw(commits) if threshold is None else None,
        ahead=draw(st.one_of(st.none(), st.builds(Ahead, num_blocks=st.integers(1, 2), bar=st.floats(0.05, 1.0))))
        if block_len
        else None,
        noise_temperature=0.0 if is_greedy else draw(st.sampled_from([0.0, 2.0])),
        anneal=draw(st.sampled_from(["linear", "compound"])),
        defer_stops=draw(st.booleans()),
        early_stop=draw(st.booleans()),
        remask=draw(rule),
    )


@st.composite
def canvases(draw: st.DrawFn) -> tuple[Canvas, Tensor]:
    """Up to three rows of random ids with hidden places anywhere, and padding at either end."""
    batch, length = draw(st.integers(1, 3)), draw(st.integers(2, 14))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    ids = torch.randint(0, 22, (batch, length), generator=generator)
    target = torch.rand(batch, length, generator=generator) < draw(st.sampled_from([0.2, 0.6, 1.0]))
    attend = None
    if draw(st.booleans()):
        pads = torch.randint(0, length // 2 + 1, (batch, 1), generator=generator)
        columns = torch.arange(length)
        attend = columns >= pads if draw(st.booleans()) else columns < length - pads
        target &= attend
    return Canvas(ids=ids.masked_fill(target, MASK), attend=attend), target


def decode(canvas: Canvas, target: Tensor, policy: DecodingPolicy, *, seed: int = 0, **options) -> Decoded:
    """Decode one segment named "out"."""
    segment = Segment(
        name="out", is_target=target, allowed_ids=ALLOWED, policy=policy, stop_ids=options.pop("stop_ids", ())
    )
    generator = options.pop("generator", torch.Generator().manual_seed(seed))
    denoiser = options.pop("denoiser", ContextDenoiser(NUM_IDS))
    return ParallelDecoder(denoiser, MASK).run(canvas, [segment], generator=generator, **options)


@given(canvases(), policies(), st.sampled_from([(), STOPS]))
@settings(deadline=None, max_examples=25)
def test_conditions_stay_targets_become_allowed_ids_and_calls_are_counted(setting, policy, stops) -> None:
    canvas, target = setting
    denoiser = ContextDenoiser(NUM_IDS)
    result = decode(canvas, target, policy, stop_ids=stops, denoiser=denoiser)
    assert torch.equal(result.ids[~target], canvas.ids[~target])
    assert torch.isin(result.ids[target], ALLOWED).all()
    assert result.num_forwards == denoiser.num_calls


@given(canvases(), policies(), st.integers(0, 1000))
@settings(deadline=None, max_examples=12)
def test_the_same_generator_gives_the_same_ids(setting, policy, seed) -> None:
    canvas, target = setting
    first, second = (decode(canvas, target, policy, seed=seed) for _ in range(2))
    assert torch.equal(first.ids, second.ids)


@given(canvases(), policies(is_greedy=True), st.sampled_from([(), STOPS]))
@settings(deadline=None, max_examples=25)
def test_a_row_decodes_alone_as_in_a_batch(setting, policy, stops) -> None:
    canvas, target = setting
    together = decode(canvas, target, policy, stop_ids=stops)
    for row in range(len(canvas.ids)):
        one = slice(row, row + 1)
        alone = Canvas(ids=canvas.ids[one], attend=None if canvas.attend is None else canvas.attend[one])
        result = decode(alone, target[one], policy, stop_ids=stops)
        assert torch.equal(result.ids, together.ids[one])
        assert result.finish_reasons == together.finish_reasons[one]


@given(canvases(), policies())
@settings(deadline=None, max_examples=12)
def test_a_sampled_row_with_its_own_generator_decodes_alone_as_in_a_batch(setting, policy) -> None:
    canvas, target = setting

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(row) for row in range(len(canvas.ids))]

    together = decode(canvas, target, policy, generator=generators())
    last = slice(len(canvas.ids) - 1, None)
    alone = Canvas(ids=canvas.ids[last], attend=None if canvas.attend is None else canvas.attend[last])
    result = decode(alone, target[last], policy, generator=generators()[last])
    assert torch.equal(result.ids, together.ids[last])


@given(canvases(), st.integers(2, 6), st.integers(2, 5), st.sampled_from([(), STOPS]))
@settings(deadline=None, max_examples=12)
def test_a_growing_row_decodes_alone_as_in_a_batch_and_keeps_its_suffix(setting, block_len, num_blocks, stops) -> None:
    canvas, target = setting
    max_len = block_len * num_blocks
    ahead = Ahead(bar=0.3) if num_blocks % 2 else None
    policy = DecodingPolicy(num_steps=max_len, block_len=block_len, max_len=max_len, ahead=ahead)
    together = decode(canvas, target, policy, stop_ids=stops)
    for row in range(len(canvas.ids)):
        one = slice(row, row + 1)
        alone = Canvas(ids=canvas.ids[one], attend=None if canvas.attend is None else canvas.attend[one])
        result = decode(alone, target[one], policy, stop_ids=stops)
        assert torch.equal(result.answer("out", 0), together.answer("out", row))
        length = int(result.is_target["out"].sum())
        assert length == int(together.is_target["out"][row].sum())
        assert length <= max(max_len, int(target[row].sum()))
        kept = result.ids[0][~result.is_target["out"][0]]
        assert torch.equal(kept, canvas.ids[row][~target[row]])


@given(canvases(), policies(rule=st.none()), st.sampled_from([LowConfidenceRemask(), VerifyRemask(bar=0.9)]))
@settings(deadline=None, max_examples=15)
def test_hiding_again_takes_as_many_calls_as_not_hiding(setting, policy, rule) -> None:
    canvas, target = setting
    policy = replace(policy, threshold=None, commit=None, ahead=None)
    plain = decode(canvas, target, policy)
    again = decode(canvas, target, replace(policy, remask=rule))
    assert again.num_forwards == plain.num_forwards


@given(canvases(), policies())
@settings(deadline=None, max_examples=15)
def test_every_step_commits_at_least_one_place(setting, policy) -> None:
    canvas, target = setting
    trace = Trace()
    result = decode(canvas, target, policy, observer=trace)
    assert len(trace.steps) == result.num_forwards
    assert all(bool(step.is_committed.any()) for step in trace.steps)
    assert all(not bool((step.is_committed & step.is_remasked).any()) for step in trace.steps)


@given(canvases(), policies(), st.integers(0, 2**16))
@settings(deadline=None, max_examples=15)
def test_redoing_a_part_leaves_every_other_id_as_it_was(setting, policy, seed) -> None:
    canvas, target = setting
    whole = decode(canvas, target, policy)
    part = target & (torch.rand(target.shape, generator=torch.Generator().manual_seed(seed)) < 0.4)
    redone = decode(replace(canvas, ids=whole.ids.masked_fill(part, MASK)), part, policy, seed=seed)
    assert torch.equal(redone.ids[~part], whole.ids[~part])
    assert torch.isin(redone.ids[part], ALLOWED).all()


@given(
    st.integers(0, 300),
    st.integers(1, 80),
    st.sampled_from(["uniform", "cosine", "linear", "pow2", "pow0.3", "sigmoid"]),
    st.integers(0, 40),
    st.integers(0, 40),
)
@settings(deadline=None)
def test_plans_end_at_zero_on_time_and_never_rise(num_masked, num_steps, schedule, held, hold_steps) -> None:
    remaining = plan_remaining(num_masked, num_steps, schedule)
    assert len(remaining) == min(num_masked, num_steps)
    assert all(after < before for before, after in zip((num_masked, *remaining), remaining, strict=False))
    assert num_masked == 0 or remaining[-1] == 0
    with_hold = plan_remaining(num_masked, num_steps, schedule, held, hold_steps)
    assert len(with_hold) <= num_steps
    assert all(after <= before for before, after in zip((num_masked, *with_hold), with_hold, strict=False))
    assert num_masked == 0 or with_hold[-1] == 0
