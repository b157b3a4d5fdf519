"""The laws of `tools/check_house.py`: the project obeys them, and a house that breaks one is told so."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


house = load(ROOT / "tools" / "check_house.py")
bootstrap = load(ROOT / "bootstrap.py")


def write(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("law", house.LAWS, ids=lambda law: law.__name__)
def test_the_project_obeys(law):
    assert list(law(ROOT)) == []


BAD_HOUSES = {
    "file_lengths": ("src/dynin/long.py", "x = 1\n" * 401, "401 lines"),
    "readable": ("src/dynin/newer.py", "def f(:\n", "this is Python"),
    "homeless_names": ("src/dynin/utils.py", "", "homeless"),
    "ascii_code": ("src/dynin/accent.py", "name = '\u00e9'\n", "outside ASCII"),
}


@pytest.mark.parametrize("name", BAD_HOUSES)
def test_a_house_that_breaks_a_law_is_told(name, tmp_path):
    path, text, words = BAD_HOUSES[name]
    write(tmp_path, path, text)
    findings = list(getattr(house, name)(tmp_path))
    assert len(findings) == 1
    assert words in findings[0]


def test_a_function_of_61_statements_is_found_and_one_of_60_is_not(tmp_path):
    for count in (60, 61):
        write(tmp_path, f"src/f{count}.py", f"def f{count}():\n" + "    x = 1\n" * count)
    findings = list(house.function_sizes(tmp_path))
    assert len(findings) == 1
    assert "f61 has 61 statements" in findings[0]


def test_nine_parameters_are_too_many_except_for_forward_and_commands(tmp_path):
    names = "a, b, c, d, e, f, g, h, *, i"
    write(tmp_path, "src/dynin/model.py", f"def f({names}): ...\nclass A:\n    def forward(self, {names}): ...\n")
    write(tmp_path, "src/dynin/cli/one.py", f"def command({names}): ...\n")
    findings = list(house.function_sizes(tmp_path))
    assert len(findings) == 1
    assert "model.py:1: f has 9 parameters" in findings[0]


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load('x')",
        "eval('1')",
        "load(trust_remote_code=True)",
        "from __future__ import annotations",
        "np.load('x', allow_pickle=True)",
    ],
)
def test_code_that_runs_what_a_file_says_is_found(line, tmp_path):
    write(tmp_path, "src/dynin/a.py", line + "\n")
    assert len(list(house.banned_code(tmp_path))) == 1


def test_setting_a_network_to_evaluation_is_no_call_of_eval(tmp_path):
    write(tmp_path, "src/dynin/a.py", "model.eval()\nliteral_eval('1')\n")
    assert list(house.banned_code(tmp_path)) == []


def test_weights_that_are_too_heavy_are_found(tmp_path):
    shard = write(tmp_path, "src/dynin/assets/model.safetensors", "")
    with shard.open("wb") as file:
        file.truncate(17 * house.MIB)
    findings = list(house.weights_and_sizes(tmp_path))
    assert len(findings) == 1
    assert "17.0 MiB, at most 16 MiB" in findings[0]


def test_the_tree_must_name_what_exists_and_nothing_else(tmp_path):
    write(tmp_path, "src/dynin/media/image.py", "")
    write(tmp_path, "README.md", "```\n  model/    ids to logits\n```\n")
    findings = list(house.readme_tree(tmp_path))
    assert [finding.rsplit(" ", 1)[-1] for finding in findings] == ["media/", "exist"]


def test_the_readme_shows_the_two_commands_python_and_the_command_line():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert any("make demo" in body and "make test" in body for _, body in blocks)
    assert any("import dynin" in body for kind, body in blocks if kind == "python")
    assert any("dynin generate" in body for _, body in blocks)


def test_the_python_of_the_readme_compiles():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for body in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        compile(body, "README.md", "exec")


def test_links_in_the_documents_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            target = (page.parent / link).resolve()
            assert target.exists(), f"{page.relative_to(ROOT)} links to {link}"


def test_every_dependency_is_pinned_by_the_constraints():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [*project["dependencies"], *(line for lines in project["optional-dependencies"].values() for line in lines)]
    wanted = {normal(re.split(r"[\[<>=]", line)[0]) for line in named} - {"dynin"}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {normal(line.split("==")[0]) for line in lines if "==" in line}
    assert wanted <= pinned


def test_the_constraints_bring_no_cuda_package_and_no_torchvision():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower()
    assert not re.search(r"nvidia|cuda|triton|torchvision|torchaudio", re.sub("#.*", "", text))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_setup_with_an_unknown_command_shows_its_usage():
    result = subprocess.run(
        [sys.executable, ROOT / "bootstrap.py", "dmo"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert result.returncode == 2
    assert "usage:" in result.stderr


def test_an_old_python_is_told_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 9, 1))
    monkeypatch.setattr(bootstrap, "newer_python", lambda: None)
    assert bootstrap.main(["setup"]) == 2
    message = capsys.readouterr().err
    assert "3.11 or newer" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("metadata", "is_cpu"),
    [
        ({"version": "2.13.0+cpu", "requires_dist": []}, True),
        ({"version": "2.13.0", "requires_dist": ["sympy", "triton==3; extra == 'x'"]}, True),
        ({"version": "2.13.0", "requires_dist": ["nvidia-cudnn==9; platform_system == 'Linux'"]}, False),
        ({"version": "2.13.0", "requires_dist": ["cuda-bindings>=13"]}, False),
    ],
)
def test_a_cuda_build_of_torch_is_told_from_a_cpu_build(metadata, is_cpu):
    assert bootstrap.is_cpu_build(metadata) is is_cpu


def test_the_page_of_tasks_names_every_row_of_both_tables():
    from dynin.sequence.task import EMBEDDED_TASKS, PUBLISHED_ALTERNATIVES, PUBLISHED_TASKS

    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    first, second = text.split("## The published layout")
    rows = {
        match[0]: (match[1].split(", "), match[2].split(", "))
        for match in re.findall(r"^\| (\w+) \| ([a-z, ]+) \| ([a-z, ]+) \|$", first, re.MULTILINE)
    }
    words = {"text": "text", "picture": "image", "video": "video", "speech": "speech"}
    del rows["task"]
    assert set(rows) == set(EMBEDDED_TASKS)
    for name, (given, made) in rows.items():
        assert tuple(words[word] for word in given) == EMBEDDED_TASKS[name].conditions
        assert tuple(words[word] for word in made) == EMBEDDED_TASKS[name].targets
    assert all(name in second for name in {**PUBLISHED_TASKS, **PUBLISHED_ALTERNATIVES})


def test_the_page_of_the_vocabulary_tells_the_published_ids():
    from dynin.vocabulary import PUBLISHED

    text = (ROOT / "docs" / "vocabulary.md").read_text(encoding="utf-8").split("## The embedded layout")[0]
    for name, token_id in PUBLISHED.special.items():
        line = next(line for line in text.splitlines() if line.startswith("| ") and f"`{name}`" in line)
        numbers = [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]+\d", line.split("|")[1])]
        assert numbers[0] <= token_id <= numbers[-1], name
    assert f"{PUBLISHED.size:,} rows" in text


def test_the_page_of_decoding_names_every_field_of_a_policy():
    from dataclasses import fields

    from dynin.decoding.policy import DecodingPolicy

    text = (ROOT / "docs" / "decoding.md").read_text(encoding="utf-8")
    assert all(f"`{field.name}`" in text for field in fields(DecodingPolicy))


def test_every_quirk_has_a_row_that_names_code_which_exists():
    rows = re.findall(r"^\| Q(\d+) \|.*\| (`[^|]+`) \|$", (ROOT / "docs" / "parity.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 25))
    for _, places in rows:
        folder = Path()
        for place in re.findall(r"`([\w/.]+)`", places):
            folder = Path(place).parent if "/" in place else folder
            assert (ROOT / "src" / "dynin" / folder / Path(place).name).exists(), place
