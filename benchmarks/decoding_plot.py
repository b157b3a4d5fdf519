"""The ratios of the benchmark of decoding as a picture.

Enters: rows of its file. Leaves: a PNG, or a line that says what is missing. Does not know where rows come from.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> str:
    """A bar for each ratio that may be told, with what is wanted and what is aimed at; what was done, as a line."""
    told = {row["case"]: row for row in rows if row.get("ratio")}  # the last of each case
    if not told:
        return "no picture: there is no ratio to draw"
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return "no picture: matplotlib is missing; pip install 'dynin[plots]'"
    names = list(told)
    figure, axes = pyplot.subplots(figsize=(7, 0.5 * len(names) + 1.5), layout="constrained")
    for place, name in enumerate(names):
        row = told[name]
        value, (low, high) = row["ratio"]["cpu_s"], bounds(row)
        axes.barh(place, value, color="#4c72b0", height=0.55)
        axes.plot([low, high], [place, place], color="black", linewidth=1)
        axes.plot([row["resolve_at"]] * 2, [place - 0.38, place + 0.38], color="#c44e52", linewidth=2)
        axes.plot([row["aim"]] * 2, [place - 0.38, place + 0.38], color="#55a868", linewidth=2)
        axes.text(high, place, f"  {value:.1f}", va="center")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("times as fast as the published sampler (processor time); red: wanted, green: aim")
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return f"picture: {path}"


def bounds(row: Mapping[str, Any]) -> tuple[float, float]:
    """The ratio of the tenth percentile of one side to the ninetieth of the other, both ways."""
    first, other = (row["sides"][side]["cpu_s"] for side in ("oracle", "ours"))
    return first["p10"] / other["p90"], first["p90"] / other["p10"]
