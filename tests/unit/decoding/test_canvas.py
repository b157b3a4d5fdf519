"""Places of a segment, and canvases that grow."""

import torch

from dynin.decoding.canvas import Canvas, grow, locate

MASK = 9


def test_places_are_in_order_and_padded_on_the_right() -> None:
    places = locate(torch.tensor([[False, True, False, True], [False, False, True, False]]))
    assert places.columns[0].tolist() == [1, 3]
    assert places.columns[1, 0] == 2
    assert places.is_valid.tolist() == [[True, True], [True, False]]


def test_new_places_come_after_the_last_target_and_the_suffix_moves() -> None:
    canvas = Canvas(ids=torch.tensor([[1, 2, MASK, 5]]), uncond_ids=torch.tensor([[0, 0, MASK, 5]]))
    target = torch.tensor([[False, False, True, False]])
    other = torch.tensor([[False, False, False, True]])
    grown, (target, other) = grow(canvas, (target, other), 0, torch.tensor([2]), MASK)
    assert grown.ids.tolist() == [[1, 2, MASK, MASK, MASK, 5]]
    assert grown.uncond_ids is not None
    assert grown.uncond_ids.tolist() == [[0, 0, MASK, MASK, MASK, 5]]
    assert target.tolist() == [[False, False, True, True, True, False]]
    assert other.tolist() == [[False, False, False, False, False, True]]
    assert grown.attend is None


def test_rows_that_need_less_are_padded_at_their_right_end() -> None:
    canvas = Canvas(ids=torch.tensor([[1, MASK, 5], [2, MASK, 6]]))
    target = torch.tensor([[False, True, False]] * 2)
    grown, (target,) = grow(canvas, (target,), 0, torch.tensor([0, 2]), MASK)
    assert grown.ids[0, :3].tolist() == [1, MASK, 5]
    assert grown.ids[1].tolist() == [2, MASK, MASK, MASK, 6]
    assert grown.attend is not None
    assert grown.attend.tolist() == [[True, True, True, False, False], [True] * 5]
    assert target[0].tolist() == [False, True, False, False, False]
