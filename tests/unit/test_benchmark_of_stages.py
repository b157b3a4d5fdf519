"""The benchmark of stages on the tiny model: what is made elsewhere and judged here is what `dynin evaluate` judges."""

import json
import sys
from pathlib import Path

import pytest
import torch

from dynin import testing
from dynin.evaluation import runner
from dynin.evaluation.suite import SUITE
from dynin.media.audio import Audio
from dynin.media.image import from_pil
from dynin.pipeline.folder import load
from dynin.types import Modality

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import stages  # noqa: E402

NUM = 2


@pytest.fixture(scope="module")
def tiny():
    return testing.tiny()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return testing.tiny_model(tmp_path_factory.mktemp("stages") / "model")


@pytest.fixture
def heard(tmp_path, place):
    path = tmp_path / "heard.json"
    told = {"seed": stages.SEED, "fingerprint": load(place).tokenizers.fingerprint("speech"), "codes": {}}
    path.write_text(json.dumps(told))
    return path


@pytest.mark.parametrize(("name", "count"), [("t2i", 2), ("t2i_large", 2), ("t2s", 1)])
def test_what_was_made_elsewhere_is_the_result_that_a_request_gets(tiny, name, count):
    row, wanted = SUITE[name], runner.Wanted(seed=stages.SEED, limit=count)
    asked = list(stages.examples(row, count))
    made = json.loads(json.dumps(stages.make_group(tiny, row, asked, None, 0)))
    results = runner.at_once(tiny, asked, wanted, num_done=0, size_px=row.size_px)
    for number, (example, one, expected) in enumerate(zip(asked, made, results, strict=True)):
        rebuilt = stages.result_of(tiny.tokenizers, example, one, stages.SEED + number)
        assert rebuilt.text == expected.text
        if expected.image is not None:
            assert torch.equal(from_pil(rebuilt.image), from_pil(expected.image))
        if expected.audio is not None:
            assert torch.equal(rebuilt.audio.samples, expected.audio.samples)


def test_a_sound_that_comes_as_codes_is_heard_as_the_sound_itself(tiny):
    noise = torch.randn(16_000, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    sound = Audio(samples=noise, rate_hz=16_000)
    codes = tiny.tokenizers.encode(Modality.SPEECH, sound)
    (asked,) = stages.examples(SUITE["s2t"], 1)
    (made,) = stages.make_group(tiny, SUITE["s2t"], [asked], [codes.tolist()], 0)
    assert made == tiny.generate(audio=sound, to="text", seed=stages.SEED).text


def test_every_code_comes_back_from_a_sound_that_tells_codes(tiny):
    speech = stages.Encoded(tiny.tokenizers.speech)
    for codes in ([0], [], list(range(speech.codebook_size)) * 30):
        assert speech.encode(speech.sound_of(codes)).tolist() == codes


def test_examples_are_those_that_evaluation_takes():
    for name in ("i2t", "t2t_thinking"):
        mine = list(stages.examples(SUITE[name], NUM))
        usual = list(runner.held_out(SUITE[name], runner.Wanted(seed=stages.SEED, limit=NUM)))
        assert [one.target for one in mine] == [one.target for one in usual]


def test_what_is_in_a_file_is_not_made_or_judged_again(tmp_path, place, heard, capsys):
    made = tmp_path / "made"
    for rows in ({"t2i": NUM}, {"t2i": NUM, "t2i_large": 1}):
        stages.make(place, made / "seed0-stage1.json", stages.Wanted(rows=rows, heard=heard), "cpu")
    assert capsys.readouterr().out.splitlines() == [f"{place}: t2i", f"{place}: t2i_large"]
    for _ in range(2):
        stages.judge(made, tmp_path / "scores.json")
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_codes_of_another_tokenizer_are_refused(tmp_path, place, heard):
    heard.write_text(heard.read_text().replace('"fingerprint": "', '"fingerprint": "other'))
    with pytest.raises(SystemExit, match="`hear` them anew"):
        stages.make(place, tmp_path / "made.json", stages.Wanted(rows={"t2i": 1}, heard=heard), "cpu")
    assert not (tmp_path / "made.json").exists()


def test_the_table_pools_the_seeds_that_have_both_arms(tmp_path):
    right, wrong = [1.0, 1.0], [0.0, 1.0]
    scores = {
        "seed0-merged": {"t2i": [right] * 8},
        "seed0-stage1": {"t2i": [wrong] * 8},
        "seed1-merged": {"t2i": [right] * 8},
    }
    losses = {"seed0-merged": {"t2i": {"loss": 0.5}}, "seed1-merged": {"t2i": {"loss": 0.7}}}
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"outcomes": scores, "losses": losses}))
    lines = stages.table(path).splitlines()
    assert "outcomes  merged     t2i           mean 1.000  seeds 1.000 1.000" in lines
    assert "losses    merged     t2i           mean 0.600  seeds 0.500 0.700" in lines
    (told,) = [line for line in lines if line.startswith("merged - stage1")]
    assert "+1.000" in told
    assert told.endswith("1 seeds, n 8")
