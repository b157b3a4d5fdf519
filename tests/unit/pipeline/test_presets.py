"""Presets: which policy a request gets, that all of them end, and what their results tell."""

import pytest

from dynin import testing
from dynin.cli.app import main
from dynin.decoding.policy import DecodingPolicy
from dynin.errors import RequestError
from dynin.evaluation.runner import Wanted, with_remask
from dynin.pipeline.policies import POLICIES, adjust, grid_of
from dynin.pipeline.presets import NONE, PRESET_NAMES, PRESETS
from dynin.pipeline.request import Request
from dynin.pipeline.result import HIDDEN
from dynin.sequence.task import EMBEDDED_TASKS, TABLES
from dynin.types import Modality

TEXT, IMAGE, VIDEO, SPEECH = Modality


@pytest.fixture(scope="module")
def media():
    return {
        TEXT: "a dog",
        IMAGE: testing.small_picture(),
        VIDEO: testing.small_video(),
        SPEECH: testing.small_sound(0.5),
    }


def test_every_layout_has_presets_and_defaults_that_exist():
    assert set(PRESETS) == set(POLICIES)
    for name, presets in PRESETS.items():
        assert set(presets.tables) <= set(PRESET_NAMES) - {"exact"}
        for task in TABLES[name].values():
            for modality in task.targets:
                default = presets.default(task.name, modality)
                assert default == "exact" or presets.policy(default, task.name, modality) is not None


@pytest.mark.parametrize(
    ("name", "preset"),
    [*((name, "fast") for name in EMBEDDED_TASKS), *((name, "balanced") for name in ("t2t", "t2i", "t2v", "t2s"))],
)
def test_every_preset_ends_every_task_with_nothing_hidden(tiny, media, name, preset):
    task = EMBEDDED_TASKS[name]
    given = {modality: media[modality] for modality in task.conditions}
    result = tiny.run(Request.to_fulfil(given, "+".join(task.targets), preset=preset, trace=True))
    for modality in task.targets:
        last = [snapshot for snapshot in result.trace if snapshot.modality == modality][-1]
        assert not (last.codes == HIDDEN).any()
    assert result.num_forwards == len(result.trace)
    assert result.num_tokens > 0


def test_the_exact_preset_is_the_table_of_policies(tiny):
    task = EMBEDDED_TASKS["t2i"]
    asked = tiny._policy(Request(prompt="a", to="image", preset="exact"), task, IMAGE)
    assert asked == POLICIES["embedded"][IMAGE]


def test_only_what_was_measured_has_another_default_than_exact(tiny):
    task, fast = EMBEDDED_TASKS["t2i"], tiny.presets.policy("fast", "t2i", IMAGE)
    for wishes, policy in (
        ({}, fast),
        ({"size": 64}, fast),
        ({"size": 128}, tiny.policies[IMAGE]),
        ({"steps": 8}, tiny.policies[IMAGE]),
        ({"redo": "0,0,32,32", "image": testing.small_picture()}, tiny.policies[IMAGE]),
    ):
        assert tiny._policy(Request(prompt="a dog", to="image", **wishes), task, IMAGE) == policy, wishes
    assert tiny._policy(Request(prompt="a dog", to="speech"), EMBEDDED_TASKS["t2s"], SPEECH) == tiny.policies[SPEECH]


def test_a_request_that_says_how_many_steps_takes_them(tiny):
    assert tiny.generate("a dog", to="image", steps=16).num_forwards == 16


def test_columns_are_counted_in_both_branches(tiny):
    plain = tiny.generate("a dog", to="image", preset="exact", guidance=0.0)
    guided = tiny.generate("a dog", to="image", preset="exact", guidance=1.0)
    assert plain.num_tokens == 16
    assert plain.num_columns % plain.num_forwards == 0
    assert guided.num_columns == 2 * plain.num_columns


def test_requests_in_a_batch_count_their_own_passes(tiny):
    requests = [Request(prompt=prompt, to="text", preset="fast", thinking=False) for prompt in ("a", "a dog and a cat")]
    together = tiny.run_together(requests)
    alone = [tiny.run(request) for request in requests]
    assert all(one.num_columns > 0 for one in together)
    assert [one.num_forwards for one in alone] == [one.num_forwards for one in together]


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(RequestError, match="unknown preset 'fats'; did you mean 'fast'"):
        Request(prompt="a", to="image", preset="fats")
    with pytest.raises(RequestError, match="unknown preset 'fats'; did you mean 'fast'"):
        Wanted(seed=0, preset="fats")


def test_a_preset_that_a_model_does_not_have_is_refused():
    with pytest.raises(RequestError, match="this model has no preset 'fast'"):
        NONE.policy("fast", "t2i", IMAGE)


def test_more_steps_than_places_are_refused_with_both_numbers(tiny):
    with pytest.raises(RequestError, match="steps is 17, but at most 16 places"):
        tiny.generate("a dog", to="image", steps=17)


def test_requests_of_different_presets_do_not_run_together(tiny):
    with pytest.raises(RequestError, match="differ"):
        tiny.run_together([Request(prompt="a", to="image", preset=preset) for preset in ("exact", "fast")])


def test_a_rule_for_hiding_again_goes_into_every_preset(tiny):
    model = with_remask(tiny, "confidence")
    assert all(policy.remask is not None for table in model.presets.tables.values() for policy in table.values())


def test_guidance_that_is_turned_off_asks_no_pause_of_it():
    policy = DecodingPolicy(num_steps=4, guidance_scale=1.0, guidance_every=2)
    assert adjust(policy, guidance=0.0).guidance_every == 1
    assert adjust(policy, guidance=2.0).guidance_every == 2


@pytest.mark.parametrize(
    ("modality", "places", "grid"),
    [(IMAGE, 16, (4, 4)), (IMAGE, 15, None), (VIDEO, 64, (4, 4, 4)), (VIDEO, 60, None), (TEXT, 16, None)],
)
def test_pictures_and_videos_lie_in_square_grids(modality, places, grid):
    assert grid_of(modality, places, 4) == grid


def test_the_commands_know_presets(tmp_path, capsys):
    folder = testing.tiny_model(tmp_path / "tiny")
    common = ["--model", str(folder), "--device", "cpu"]
    assert main(["generate", "a dog", "--to", "text", "--preset", "fast", "--json", *common]) == 0
    assert '"num_tokens"' in capsys.readouterr().out
    assert main(["generate", "a dog", "--to", "text", "--preset", "quick", *common]) == 2
    assert "unknown preset 'quick'" in capsys.readouterr().err
    report = ["--output", str(tmp_path / "a.json"), "--limit", "1", "--task", "t2i"]
    assert main(["evaluate", "emoji-world", "--preset", "balanced", *report, *common]) == 0
    assert '"preset": "balanced"' in (tmp_path / "a.json").read_text()
