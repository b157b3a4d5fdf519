"""Write the model card of a model folder from its reports: python tools/model_card.py FOLDER CARD.md REPORT.json...

Enters: a model folder with its provenance, evaluation reports. Leaves: a Markdown page. Figures come from the files
alone; several reports are told one after another.
"""

import json
import sys
from pathlib import Path

HEAD = """---
license: apache-2.0
library_name: dynin
pipeline_tag: any-to-any
language: en
tags: [masked-diffusion, omnimodal, demonstrator]
---

# The embedded model

A demonstrator that ships with the code: it reads and makes text, pictures, videos and speech of one small world,
[Emoji World](emoji-world.md), and nothing else. It is no assistant, knows no facts, and speaks with one synthetic
voice (flite slt). It exists so that every line of this project can be seen at work on a laptop.
"""


def main(folder: Path, card: Path, reports: list[Path]) -> None:
    """Write the card."""
    config = json.loads((folder / "backbone" / "config.json").read_text())
    parts = {path.name: _megabytes(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    lines = [HEAD, "## What it is made of", "", "| part | on disk |", "| --- | --- |"]
    lines += [f"| {name} | {size:.1f} MiB |" for name, size in parts.items()]
    lines += ["", "## How it was trained", ""]
    lines += [f"- {name}: {value}" for name, value in config["provenance"].items() if name != "settings"]
    for report in reports:
        lines += ["", *_scores(json.loads(report.read_text()))]
    card.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def _scores(report: dict) -> list[str]:
    about = dict(report["about"])
    title = about.pop("title", "Scores")
    told = ", ".join(f"{name} {value}" for name, value in about.items() if value is not None)
    lines = [f"## {title}", "", f"{told}.", "", "| figure | score | 95% interval | n | what is counted | beside it |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for name, score in report["tasks"].items():
        beside = {key: value for key, value in score.items() if key not in ("metric", "score", "ci95", "n")}
        low, high = score["ci95"]
        told = ", ".join(f"{key} {value:.3g}" for key, value in beside.items())
        lines.append(
            f"| {name} | {score['score']:.3f} | {low:.3f} to {high:.3f} | {score['n']} | {score['metric']} | {told} |"
        )
    return lines


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
