"""The embedded model under every preset: results are whole, and quicker presets take fewer passes and columns."""

import pytest

import dynin
from dynin.evaluation.runner import Wanted, held_out
from dynin.evaluation.suite import SUITE
from dynin.pipeline.presets import PRESET_NAMES
from dynin.pipeline.request import Request
from dynin.pipeline.result import HIDDEN


@pytest.fixture(scope="module")
def model():
    return dynin.load()


@pytest.mark.parametrize("name", ["i2t", "t2i", "t2t"])
def test_every_preset_makes_whole_results_in_fewer_passes(model, name):
    example = next(iter(held_out(SUITE[name], Wanted(seed=11, limit=1, rows=(name,)))))
    made = {
        preset: model.run(Request.to_fulfil(example.condition, "+".join(example.target), preset=preset, trace=True))
        for preset in PRESET_NAMES
    }
    for result in made.values():
        assert not (result.trace[-1].codes == HIDDEN).any()
        assert result.num_forwards == len(result.trace)
        assert result.num_tokens > 0
    assert made["balanced"].num_forwards < made["exact"].num_forwards
    assert made["fast"].num_forwards < made["exact"].num_forwards
    assert made["fast"].num_columns < made["balanced"].num_columns < made["exact"].num_columns


def test_pictures_without_a_preset_come_out_together_as_alone_and_quicker_than_exact(model):
    prompts = ("a dog above a red apple on a blue background", "a star", "two cats on a green background")
    requests = [Request(prompt=prompt, to="image", seed=seed) for seed, prompt in enumerate(prompts)]
    together = model.run_together(requests)
    for request, result in zip(requests, together, strict=True):
        alone = model.run(request)
        assert alone.image.tobytes() == result.image.tobytes()
        assert alone.num_columns == result.num_columns
        assert alone.num_forwards < 16


def test_a_video_takes_fewer_passes_than_are_planned(model):
    assert model.generate("a star moves right on a green background", to="video", preset="fast").num_forwards < 32
