"""Random numbers by row, step and place."""

import pytest
import torch

from dynin.decoding.noise import CHOICE, RANDOM, REVEAL, Draws, Noise

CPU = torch.device("cpu")
PLACES = torch.arange(6)
ROWS = torch.zeros_like(PLACES)


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in (7, 8)]


def test_one_generator_per_row_makes_draws_independent_of_neighbours() -> None:
    both = Noise(generators()).begin(2, CPU).at(3, torch.tensor([0, 0, 1]), torch.tensor([2, 5, 4]))
    alone = Noise(generators()).rows([1]).begin(1, CPU).at(3, torch.tensor([0]), torch.tensor([4]))
    assert torch.equal(both.table(2, 3, 9), alone.table(0, 1, 9))
    assert torch.equal(both.one()[2:], alone.one())


def test_blocks_steps_streams_rows_and_places_draw_different_numbers() -> None:
    noise = Noise(torch.Generator().manual_seed(0))
    first, second = (noise.begin(2, CPU) for _ in range(2))
    drawn = [
        first.at(0, ROWS, PLACES).one(),
        second.at(0, ROWS, PLACES).one(),
        first.at(1, ROWS, PLACES).one(),
        first.at(0, ROWS, PLACES, REVEAL).one(),
        first.at(0, ROWS, PLACES, RANDOM).one(),
        first.at(0, ROWS + 1, PLACES).one(),
        first.at(0, ROWS, PLACES).table(0, 6, 10).flatten(),
    ]
    assert len(torch.cat(drawn).unique()) == 6 * 6 + 60
    assert torch.equal(drawn[0], first.at(0, ROWS, PLACES, CHOICE).one())


def test_tables_do_not_depend_on_how_they_are_cut() -> None:
    places = Draws(torch.tensor([3])).at(2, ROWS, PLACES)
    assert torch.equal(torch.cat([places.table(0, 4, 500), places.table(4, 6, 500)]), places.table(0, 6, 500))
    assert torch.equal(places.table(0, 6, 700)[:, :500], places.table(0, 6, 500))


def test_numbers_are_uniform_and_unrelated_along_both_directions() -> None:
    places = torch.arange(400)
    table = Draws(torch.tensor([11])).at(0, torch.zeros_like(places), places).table(0, 400, 1000)
    assert 0.0 <= float(table.min()) < 1e-4
    assert 1 - 1e-4 < float(table.max()) < 1.0
    counts = torch.histc(table, bins=100, min=0.0, max=1.0)
    assert float(((counts - 4000) ** 2 / 4000).sum()) < 150  # chi-square of 99 degrees: 99.9% lie below 148
    centred = (table - 0.5) * 12**0.5
    for lag in (1, 2, 16, 255):
        assert abs(float((centred[:, lag:] * centred[:, :-lag]).mean())) < 4 / (400 * (1000 - lag)) ** 0.5
        assert abs(float((centred[lag:] * centred[:-lag]).mean())) < 4 / ((400 - lag) * 1000) ** 0.5


def test_drawing_without_a_generator_is_refused() -> None:
    with pytest.raises(ValueError, match=r"torch\.Generator"):
        Noise(None).begin(1, CPU)
