"""The plainly written published samplers equal recorded numbers: logits, traces, and the counts of every schedule.

Fixture: `backbone_*.npz` beside `backbone_*.json`, see `golden_weights`. Counts and temperatures are those that the
published image sampler was seen to have, for 1,024 places in 20 steps and 441 in 64.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_weights import backbone_cards, golden_tensors
from torch.testing import assert_close

from dynin.testing.oracle import OracleStep, PublishedNetwork, pairs, transfer_counts
from dynin.testing.oracle_grid import GridSettings, Rows, decode_grid
from dynin.testing.oracle_speech import SpeechSettings, decode_speech
from dynin.testing.oracle_text import TextSettings, decode_text

CARDS = backbone_cards()
PROMPT_LEN = 16
# new places, steps, block length, guidance scale
RUNS = {
    "decode_a": (32, 32, 8, 0.0),
    "decode_b": (32, 16, 16, 0.0),
    "decode_c": (24, 12, 24, 0.0),
    "decode_cfg": (32, 16, 16, 1.5),
}
HIDDEN_1024 = "1020 1011 995 973 946 912 873 828 778 724 665 601 535 464 391 316 239 160 80 1"
HIDDEN_441 = (
    "440 439 438 437 436 435 434 432 430 427 425 422 418 415 411 407 403 398 393 388 383 378 372 366 360 354 347 340 "
    "333 326 319 311 304 296 288 279 271 262 253 245 235 226 217 207 198 188 178 168 158 148 138 128 117 107 96 86 75 "
    "64 53 43 32 21 10 1"
)


@pytest.fixture(scope="module", params=CARDS, ids=lambda path: path.stem)
def recorded(request: pytest.FixtureRequest) -> tuple[PublishedNetwork, int, dict[str, torch.Tensor]]:
    """The published network on recorded weights, its mask id, and the recorded arrays."""
    card: Path = request.param
    values = json.loads(card.read_text())
    config = values["config"]
    network = PublishedNetwork(
        golden_tensors(values),
        num_heads=config["n_heads"],
        num_kv_heads=config["n_kv_heads"],
        rope_theta=config["rope_theta"],
        norm_eps=values["fixed"]["rms_norm_eps"],
    )
    with np.load(card.with_suffix(".npz")) as stored:
        return network, config["mask_token_id"], {name: torch.from_numpy(stored[name]) for name in stored.files}


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert_close(actual, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_logits_equal_the_recorded_ones(recorded) -> None:
    network, _, arrays = recorded
    close(network(arrays["ids"], None), arrays["logits"])


def test_a_dense_mask_hides_padding_and_nothing_else(recorded) -> None:
    network, _, arrays = recorded
    attend = arrays["attention_mask"].bool()
    logits = network(arrays["ids"], pairs(attend))
    close(logits[0], arrays["logits"][0])
    close(logits[1][attend[1]][None], arrays["logits_padded_rows"])


@pytest.mark.parametrize("name", list(RUNS))
def test_text_equals_the_recorded_trace(recorded, name: str) -> None:
    network, mask_id, arrays = recorded
    num_new, num_steps, block_len, scale = RUNS[name]
    settings = TextSettings(
        mask_id=mask_id, num_new=num_new, num_steps=num_steps, block_len=block_len, guidance_scale=scale
    )
    found = decode_text(network, arrays["ids"][:1, :PROMPT_LEN], settings)
    assert found.tolist() == arrays[name].tolist()


@pytest.mark.parametrize(("num_places", "num_steps", "counts"), [(1024, 20, HIDDEN_1024), (441, 64, HIDDEN_441)])
def test_a_picture_hides_as_many_places_again_as_recorded(num_places: int, num_steps: int, counts: str) -> None:
    mask_id, steps = 12, []
    settings = GridSettings(
        mask_id=mask_id, num_places=num_places, first_id=2, num_classes=8, num_steps=num_steps, temperature=1.0
    )
    ids = torch.full((1, num_places + 2), mask_id)
    ids[0, [0, -1]] = 0
    logits = torch.randn(1, num_places + 2, 13, generator=torch.Generator().manual_seed(0))
    decode_grid(
        lambda ids, may_attend: logits,
        Rows(ids=ids, attend=torch.ones_like(ids, dtype=torch.bool)),
        settings,
        generator=torch.Generator().manual_seed(1),
        observer=lambda step: steps.append(int((step.ids == mask_id).sum())),
    )
    wanted = [int(count) for count in counts.split()]
    assert steps[1:] == wanted[:-1]  # what the last step hides again, its own sample fills


@pytest.mark.parametrize(
    ("num_places", "num_steps", "counts"),
    [(128, 32, [4] * 32), (10, 4, [3, 3, 2, 2]), (2, 4, [1, 1, 0, 0]), (128, 127, [2] + [1] * 126)],
)
def test_what_is_left_over_goes_to_the_earliest_steps(num_places: int, num_steps: int, counts: list[int]) -> None:
    assert transfer_counts(torch.ones(1, num_places, dtype=torch.bool), num_steps).tolist() == [counts]


def test_the_last_block_of_speech_may_be_shorter() -> None:
    mask_id, steps = 0, []
    settings = SpeechSettings(
        mask_id=mask_id, first_id=1, num_codes=8, end_ids=(9, 10), max_new=512, num_steps=383, block_len=128
    )
    ids = torch.cat([torch.full((1, 3), 10), torch.full((1, 383), mask_id)], dim=1)
    logits = torch.randn(1, 386, 11, generator=torch.Generator().manual_seed(0))

    def note(step: OracleStep) -> None:
        steps.append((step.span, int(step.is_committed.sum())))

    found = decode_speech(
        lambda ids, may_attend: logits,
        ids,
        torch.ones_like(ids, dtype=torch.bool),
        settings,
        generator=torch.Generator().manual_seed(1),
        observer=note,
    )
    assert not (found == mask_id).any()
    spans = [(3, 131), (131, 259), (259, 386)]
    assert [count for span, count in steps if span == spans[0]] == [2] + [1] * 126
    assert [count for span, count in steps if span == spans[2]] == [1] * 127
    assert list(dict.fromkeys(span for span, _ in steps)) == spans
