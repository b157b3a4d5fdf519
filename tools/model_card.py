"""Write the model card of a model folder from its reports: python tools/model_card.py FOLDER CARD.md REPORT.json...

Enters: a model folder with its provenance, evaluation reports. Leaves: a Markdown page. Figures come from the files
alone; reports that were measured alike share a table, in the order they are named.
"""

import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path

from dynin.repository import open_repository

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

Its pictures are those of Noto Color Emoji, its voices come from Flite and eSpeak NG: see [NOTICE](../NOTICE).
"""
TRAINED = "The last of its trainings; the whole recipe, with the hardware of each part, is in [training](training.md)."


def main(folder: Path, card: Path, reports: list[Path]) -> None:
    """Write the card."""
    config = json.loads((folder / "backbone" / "config.json").read_text())
    parts = {path.name: _size(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    parts["all"] = (sum(count for count, _ in parts.values()), sum(size for _, size in parts.values()))
    lines = [HEAD, "## What it is made of", "", "| part | numbers | on disk |", "| --- | --- | --- |"]
    lines += [f"| {name} | {count / 1e6:.1f} M | {size / 2**20:.1f} MiB |" for name, (count, size) in parts.items()]
    lines += ["", "## How it was trained", "", TRAINED, ""]
    lines += [f"- {name}: {value}" for name, value in config["provenance"].items() if name != "settings"]
    for report in _alike(json.loads(path.read_text()) for path in reports):
        lines += ["", *_scores(report)]
    card.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _size(folder: Path) -> tuple[int, int]:
    """How many numbers the weights of a folder hold, and its bytes on disk."""
    has_weights = any(folder.glob("*.safetensors"))
    stored = open_repository(folder).tensors.values() if has_weights else ()
    return sum(math.prod(entry.shape) for entry in stored), sum(
        path.stat().st_size for path in folder.rglob("*") if path.is_file()
    )


def _alike(reports: Iterable[dict]) -> list[dict]:
    """The reports, the figures of those that were measured alike put together."""
    together: dict[str, dict] = {}
    for report in reports:
        first = together.setdefault(json.dumps(report["about"], sort_keys=True), {**report, "tasks": {}})
        first["tasks"] |= report["tasks"]
    return list(together.values())


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
