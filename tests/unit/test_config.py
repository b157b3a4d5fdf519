"""TOML to frozen settings, strictly."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from dynin.config import load, to_dict
from dynin.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    rate: float = 0.1
    mode: Literal["slow", "fast"] = "slow"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    steps: int
    names: tuple[str, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    folder: Path = Path("runs")


def write(tmp_path: Path, text: str, name: str = "run.toml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_every_value_arrives_with_its_type(tmp_path):
    text = 'steps = 3\nnames = ["a", "b"]\nfolder = "x/y"\n[weights]\nt2i = 1\n[inner]\nrate = 2\nmode = "fast"\n'
    config = load(write(tmp_path, text), Outer)
    expected = Outer(
        steps=3, names=("a", "b"), weights={"t2i": 1.0}, inner=Inner(rate=2.0, mode="fast"), folder=Path("x/y")
    )
    assert config == expected
    assert to_dict(config)["inner"] == {"rate": 2.0, "mode": "fast"}


def test_overrides_win_and_keep_their_type(tmp_path):
    config = load(write(tmp_path, "steps = 3"), Outer, ["steps=7", "inner.mode=fast", "inner.rate=1e-3"])
    assert (config.steps, config.inner) == (7, Inner(rate=1e-3, mode="fast"))


def test_a_file_extends_another_key_by_key(tmp_path):
    write(tmp_path, "steps = 3\n[inner]\nrate = 5.0\n", "base.toml")
    config = load(write(tmp_path, 'extends = "base.toml"\n[inner]\nmode = "fast"\n'), Outer)
    assert config == Outer(steps=3, inner=Inner(rate=5.0, mode="fast"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = 3\n[inner]\nrat = 1.0", "unknown setting 'inner.rat'; did you mean 'rate'"),
        ("", "setting 'steps' is missing"),
        ("steps = 3.5", "setting 'steps' is 3.5; expected int"),
        ("steps = true", "setting 'steps' is True; expected int"),
        ('steps = 3\n[inner]\nmode = "fasst"', "setting 'inner.mode' is 'fasst'; did you mean 'fast'"),
        ("steps = 3\ninner = 4", "setting 'inner' is 4; expected a table"),
        ("steps = 3\nnames = [1]", r"setting 'names\[0\]' is 1; expected str"),
        ("steps = [", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_told_with_its_dotted_path(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load(write(tmp_path, text), Outer)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the config"):
        load(tmp_path / "none.toml", Outer)


def test_an_override_without_value_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="has no '='"):
        load(write(tmp_path, "steps = 3"), Outer, ["steps"])


def test_an_override_below_a_plain_setting_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'steps' is 3, no table"):
        load(write(tmp_path, "steps = 3"), Outer, ["steps.x=1"])


def test_a_chain_of_extends_is_refused(tmp_path):
    write(tmp_path, "steps = 1", "a.toml")
    write(tmp_path, 'extends = "a.toml"', "b.toml")
    with pytest.raises(ConfigError, match="one level"):
        load(write(tmp_path, 'extends = "b.toml"'), Outer)
