"""Curves of trainings as pictures for docs/.

    python tools/plot_training.py stages OUT.png backbone=runs/backbone/log.jsonl "stage 1"=runs/stage1/log.jsonl ...
    python tools/plot_training.py arms OUT.png "from the merged model"=A.jsonl,B.jsonl "from stage 1"=C.jsonl,D.jsonl

Enters: logs of `dynin train`. Leaves: one picture. `stages` draws the loss of every task through runs one after
another; `arms` draws runs of several seeds above each other, one panel a task. Needs matplotlib (the extra `plots`).
"""

import json
import sys
from pathlib import Path

from matplotlib import pyplot as plt

COLOURS = [plt.get_cmap("tab20")(place) for place in range(20)]


def read(path: str) -> list[dict[str, float]]:
    """The lines of a log."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def tasks_of(lines: list[dict[str, float]]) -> list[str]:
    """The tasks that have a loss."""
    return sorted({key.removeprefix("loss/") for line in lines for key in line if key.startswith("loss/")})


def stages(out: str, runs: list[tuple[str, str]]) -> None:
    """Losses of all tasks through runs one after another."""
    figure, axes = plt.subplots(figsize=(10, 5), layout="constrained")
    logs = [(name, read(path)) for name, path in runs]
    tasks = tasks_of([line for _, lines in logs for line in lines])
    first = 0.0
    for name, lines in logs:
        for place, task in enumerate(tasks):
            points = [(first + line["step"], line[f"loss/{task}"]) for line in lines if f"loss/{task}" in line]
            label = task if name == next(n for n, ls in logs if task in tasks_of(ls)) else None
            axes.plot(*zip(*points, strict=True), color=COLOURS[place % 20], label=label) if points else None
        axes.axvline(first, color="0.8", zorder=0)
        axes.text(first + 10, 6.5, name, rotation=90, va="top", fontsize=8, color="0.4")
        first += lines[-1]["step"]
    axes.set(xlabel="step", ylabel="loss at hidden places (nats)", yscale="log", ylim=(5e-3, 8))
    axes.legend(ncols=2, fontsize=7, loc="upper right")
    figure.savefig(out, dpi=110)


def arms(out: str, groups: list[tuple[str, str]]) -> None:
    """Losses by task of several ways to train, each with several seeds."""
    read_groups = [(name, [read(path) for path in paths.split(",")]) for name, paths in groups]
    tasks = tasks_of([line for _, logs in read_groups for lines in logs for line in lines])
    figure, panels = plt.subplots(1, len(tasks), figsize=(3 * len(tasks), 3), layout="constrained")
    for panel, task in zip(panels, tasks, strict=True):
        for place, (name, logs) in enumerate(read_groups):
            for number, lines in enumerate(logs):
                points = [(line["step"], line[f"loss/{task}"]) for line in lines if f"loss/{task}" in line]
                label = name if number == 0 else None
                panel.plot(*zip(*points, strict=True), color=COLOURS[2 * place], label=label, linewidth=1)
        panel.set(title=task, xlabel="step", yscale="log")
    panels[0].set_ylabel("loss")
    panels[0].legend(fontsize=7)
    figure.savefig(out, dpi=110)


def main() -> None:
    """Draw what the command line asks for."""
    kind, out, *pairs = sys.argv[1:]
    named = [tuple(pair.split("=", 1)) for pair in pairs]
    {"stages": stages, "arms": arms}[kind](out, named)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
