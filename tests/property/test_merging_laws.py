"""Laws of merging that hold for every method, coefficient and tensor."""

import itertools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynin.merging.methods import METHODS, SPARSE, Coefficients, merge_chunks, merge_tensors, seeded, smallest_kept
from dynin.merging.parts import GROUPS, ROWS, parts_of, rows_of
from dynin.model.config import EMBEDDED, ModelConfig
from dynin.model.convert import expected_shapes
from dynin.types import Modality
from dynin.vocabulary import EMBEDDED as EMBEDDED_LAYOUT
from dynin.vocabulary import PUBLISHED, embedded, published

strengths = st.floats(0.01, 0.99)
unhurried = settings(deadline=None)


@st.composite
def coefficients(draw, method=None, num_others=None):
    method = method or draw(st.sampled_from(METHODS))
    count = 1 if method == "slerp" else (num_others or draw(st.integers(1, 3)))
    weights = [draw(st.floats(0.1, 2.0)) for _ in range(count)]
    if method in ("linear", "slerp"):
        weights = [weight / sum(weights) for weight in weights]
    density = [draw(st.floats(0.05, 1.0)) if method in SPARSE else 1.0 for _ in weights]
    return {
        "method": method,
        "strength": draw(strengths),
        "weights": tuple(weights),
        "density": tuple(density),
        "rescale": draw(st.sampled_from(["density", "norm", "none"])),
    }


def tensors(seed, count, size, scale=0.05):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(size, generator=generator)
    return base, [base + scale * torch.randn(size, generator=generator) for _ in range(count)]


def merged(how, base, others, seed=0):
    return merge_tensors(how, base, others, seeded(range(seed, seed + len(others)), how.density))


@unhurried
@given(how=coefficients(), seed=st.integers(0, 99), size=st.integers(1, 40))
def test_a_model_merged_with_itself_is_itself(how, seed, size):
    how = Coefficients(**how)
    base, _ = tensors(seed, 0, size)
    assert torch.equal(merged(how, base, [base] * len(how.weights)), base)


@unhurried
@given(how=coefficients(), seed=st.integers(0, 99))
def test_no_strength_is_the_base(how, seed):
    base, others = tensors(seed, len(how["weights"]), 30)
    still = Coefficients(**{**how, "strength": 0.0})
    assert still.taken == 0
    assert torch.equal(merged(still, base, others), base)


@unhurried
@given(how=coefficients(num_others=1), seed=st.integers(0, 99))
def test_full_strength_of_one_model_is_that_model(how, seed):
    base, others = tensors(seed, 1, 30)
    full = Coefficients(**{**how, "strength": 1.0, "weights": (1.0,), "density": (1.0,)})
    assert full.taken == 1
    assert torch.allclose(merged(full, base, others), others[0], atol=1e-6)


@unhurried
@given(how=coefficients(), seed=st.integers(0, 99))
def test_what_is_computed_is_said_to_be_computed(how, seed):
    how = Coefficients(**how)
    base, others = tensors(seed, len(how.weights), 30)
    assert how.taken is None
    if how.method not in SPARSE:
        assert not torch.equal(merged(how, base, others), base)


@unhurried
@given(how=coefficients(), seed=st.integers(0, 99), cuts=st.lists(st.integers(1, 29), max_size=4))
def test_how_numbers_are_cut_changes_nothing(how, seed, cuts):
    how = Coefficients(**how)
    base, others = tensors(seed, len(how.weights), 30)
    places = [0, *sorted(set(cuts)), 30]

    def chunks():
        for start, stop in itertools.pairwise(places):
            yield base[start:stop], [other[start:stop] for other in others]

    made = torch.cat(list(merge_chunks(how, chunks, seeded(range(len(others)), how.density))))
    whole = merged(how, base, others)
    exact = how.method not in ("slerp",) and not (how.method.startswith("dare") and how.rescale == "norm")
    assert torch.equal(made, whole) if exact else torch.allclose(made, whole, rtol=1e-6, atol=1e-6)


@unhurried
@given(how=coefficients(method="linear", num_others=3), seed=st.integers(0, 99), order=st.permutations(range(3)))
def test_the_order_of_models_is_no_matter_for_linear(how, seed, order):
    base, others = tensors(seed, 3, 30)
    moved = Coefficients(**{**how, "weights": tuple(how["weights"][index] for index in order)})
    how = Coefficients(**how)
    assert torch.allclose(merged(how, base, others), merged(moved, base, [others[index] for index in order]), atol=1e-6)


@unhurried
@given(how=coefficients(), seed=st.integers(0, 99))
def test_sixteen_bits_are_merged_in_thirty_two(how, seed):
    how = Coefficients(**how)
    base, others = tensors(seed, len(how.weights), 30)
    narrow, wide = base.bfloat16(), [other.bfloat16() for other in others]
    made = merged(how, narrow, wide)
    assert made.dtype == torch.float32
    assert torch.equal(made, merged(how, narrow.float(), [other.float() for other in wide]))


@unhurried
@given(
    values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=60),
    density=st.floats(0.01, 1.0),
)
def test_the_smallest_kept_magnitude_is_that_of_a_sort(values, density):
    numbers = torch.tensor(values)
    num_kept = max(1, int(density * len(values)))
    limit, num_equal = smallest_kept(lambda: iter(numbers.split(7)), density)
    ranked = np.sort(np.abs(np.asarray(values, dtype=np.float32)))[::-1]
    assert limit == ranked[num_kept - 1]
    assert num_equal == num_kept - int((ranked > limit).sum())


@unhurried
@given(how=coefficients(method="ties"), seed=st.integers(0, 99), is_tied=st.booleans())
def test_ties_equals_a_naive_loop(how, seed, is_tied):
    how = Coefficients(**how)
    base, others = tensors(seed, len(how.weights), 24, scale=1.0)
    if is_tied:
        base, others = base.round(), [other.round() for other in others]
    made = merged(how, base, others)
    for at, expected in enumerate(naive_ties(how, base, others)):
        assert abs(float(made[at]) - expected) < 1e-5


def naive_ties(how, base, others):
    trimmed = []
    for other, density in zip(others, how.density, strict=True):
        change = (other - base).tolist()
        ranked = sorted(range(len(change)), key=lambda at: (-abs(change[at]), at))
        kept = set(ranked[: max(1, int(density * len(change)))])
        trimmed.append([value if at in kept else 0.0 for at, value in enumerate(change)])
    for at, start in enumerate(base.tolist()):
        weighted = [weight * change[at] for weight, change in zip(how.weights, trimmed, strict=True)]
        sign = 1 if sum(weighted) >= 0 else -1
        agree = [(value, weight) for value, weight in zip(weighted, how.weights, strict=True) if value * sign > 0]
        total = sum(value for value, _ in agree) / sum(weight for _, weight in agree) if agree else 0.0
        yield start + how.strength * total


@given(seed=st.integers(0, 2**40), density=st.sampled_from([0.2, 0.5, 0.9]))
@settings(max_examples=20, deadline=None)
def test_dare_drops_the_asked_share_and_keeps_the_sum_in_expectation(seed, density):
    base = torch.zeros(20_000)
    how = Coefficients(method="dare_linear", strength=1.0, weights=(1.0,), density=(density,), rescale="density")
    made = merged(how, base, [base + 1], seed)
    assert abs(float((made != 0).float().mean()) - density) < 0.02
    assert torch.allclose(made[made != 0], torch.tensor(1 / density))
    assert torch.equal(made, merged(how, base, [base + 1], seed))
    assert not torch.equal(made, merged(how, base, [base + 1], seed + 1))


layouts = st.one_of(
    st.sampled_from([EMBEDDED_LAYOUT, PUBLISHED, published(126_464, name="mmada", size=134_656, speech_codes=0)]),
    st.builds(embedded, text_size=st.integers(1, 50), image_codes=st.integers(1, 50), speech_codes=st.integers(1, 50)),
    st.builds(published, st.integers(126_349, 126_464)),
)


@given(layout=layouts)
@settings(max_examples=20, deadline=None)
def test_groups_of_rows_cover_every_id_once(layout):
    seen = torch.zeros(layout.size, dtype=torch.int64)
    for group in ROWS:
        for run in rows_of(layout, group):
            seen[run.start : run.stop] += 1
    assert bool((seen == 1).all())
    for modality in (Modality.IMAGE, Modality.SPEECH):
        span = layout.range_of(modality)
        assert rows_of(layout, modality.value) == ((span,) if len(span) else ())
    names = {layout[name] for name in ("soa", "eoa", "t2s", "s2t", "v2t")}
    assert all(any(token_id in run for run in rows_of(layout, "specials_new")) for token_id in names)
    assert all(
        any(layout[name] in run for run in rows_of(layout, "specials")) for name in ("mask", "bos", "t2i", "soi")
    )


def test_parts_cover_every_tensor_and_every_group():
    config = ModelConfig(**{**EMBEDDED.to_dict(), "num_layers": 3})
    parts = list(parts_of(config))
    assert {part.tensor for part in parts} == expected_shapes(config).keys()
    assert {part.group for part in parts} == set(GROUPS)
    whole = [part.tensor for part in parts if not part.is_rows]
    assert len(whole) == len(set(whole))
