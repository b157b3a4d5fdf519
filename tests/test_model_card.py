"""`tools/model_card.py`: a page that says how large a model is and puts figures measured alike into one table."""

import importlib.util
import json
import re
from pathlib import Path

from dynin.pipeline.folder import EMBEDDED_FOLDER

TOOL = Path(__file__).resolve().parents[1] / "tools" / "model_card.py"


def card_of(folder: Path, reports: list[dict]) -> str:
    spec = importlib.util.spec_from_file_location("model_card", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    paths = [folder / f"report-{count}.json" for count in range(len(reports))]
    for path, report in zip(paths, reports, strict=True):
        path.write_text(json.dumps(report))
    tool.main(EMBEDDED_FOLDER, folder / "card.md", paths)
    return (folder / "card.md").read_text()


def report(name: str, seed: int) -> dict:
    score = {"metric": "right", "score": 0.5, "ci95": [0.4, 0.6], "n": 200}
    return {"tasks": {name: score}, "about": {"seed": seed, "limit": 200, "steps": None}}


def test_reports_measured_alike_share_a_table_and_others_do_not(tmp_path):
    card = card_of(tmp_path, [report("t2i", 1), report("t2s", 2), report("i2t", 1)])
    assert card.count("## Scores") == 2
    first, second = card.split("## Scores")[1:]
    assert "| t2i | 0.500 | 0.400 to 0.600 | 200 | right |" in first
    assert "| i2t |" in first
    assert "| t2s |" in second
    assert "seed 2, limit 200" in second
    assert "None" not in card


def test_the_card_counts_at_most_fourteen_million_numbers_and_names_what_comes_from_others(tmp_path):
    card = card_of(tmp_path, [report("t2i", 1)])
    *parts, whole = (float(count) for count in re.findall(r"^\| \w+ \| ([\d.]+) M \|", card, re.MULTILINE))
    assert len(parts) == 4
    assert abs(sum(parts) - whole) < 0.25
    assert 6 < whole <= 14
    assert "](../NOTICE)" in card
    assert "](training.md)" in card
