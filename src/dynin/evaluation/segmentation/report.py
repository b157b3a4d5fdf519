"""The report of one set of predictions: a JSON file with every pair, and a table for the eye.

Enters: scores of pairs and their summary. Leaves: a file, lines. Does not know masks.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from dynin.evaluation.segmentation.overall import MEASURES, Summary
from dynin.evaluation.segmentation.pair import PairScore
from dynin.media.files import replace_whole

SHOWN = ("J&F", "J", "F", "J&F_visible", "R", "gIoU", "cIoU", "no_target_accuracy", "false_empty_rate")
"""Measures of the table; the file holds all of them."""


def write(path: Path, pairs: Sequence[PairScore], summary: Summary, about: Mapping[str, object]) -> None:
    """Write `{"about": ..., "rows": {name: {measure: interval}}, "pairs": [...]}`, whole or not at all."""
    content = {"about": dict(about), "rows": summary.to_dict(), "pairs": [asdict(pair) for pair in pairs]}
    with replace_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def table(summary: Summary) -> str:
    """The summary as lines, in points of 100, with 95% intervals where a row has room for them."""
    measures = [name for name in SHOWN if name in MEASURES and any(name in row for row in summary.rows.values())]
    width = max(map(len, summary.rows))
    lines = [f"{'':{width}} {'pairs':>6}  " + "  ".join(f"{name:>18}" for name in measures)]
    for name, row in summary.rows.items():
        cells = []
        for measure in measures:
            found = row.get(measure)
            told = "" if found is None else f"{100 * found.value:.1f}"
            if found is not None and not math.isnan(found.low):
                told += f" [{100 * found.low:.1f}, {100 * found.high:.1f}]"
            cells.append(f"{told:>18}")
        lines.append(f"{name:{width}} {summary.num_pairs[name]:6d}  " + "  ".join(cells))
    return "\n".join(line.rstrip() for line in lines)
