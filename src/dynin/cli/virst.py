"""`dynin virst`: scores of referring segmentation, submissions, and the ablation tables.

Enters: flags. Leaves: a JSON report, a zip, a folder of tables. Does not know metrics; models are joined to them in
virst_models.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dynin.cli.place import require_place
from dynin.cli.progress import Progress
from dynin.config import suggest
from dynin.errors import RequestError

if TYPE_CHECKING:
    from dynin.data.referring.example import ReferringExample
    from dynin.data.referring.source import ReferringSource
    from dynin.evaluation.segmentation.floors import Tracks
    from dynin.evaluation.segmentation.pair import PairScore
    from dynin.evaluation.segmentation.score import Listing

virst = typer.Typer(
    help="Referring segmentation in videos: scores, submissions, ablations.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EMOJI_WORLD = "emoji-world"
FLOORS = ("all-empty", "all-foreground", "another-object", "truth")
MOST_VIDEOS = 100_000
DTYPES = ("float32", "bfloat16_backbone")

DatasetFlag = Annotated[
    str, typer.Option(help="mevis, revos, ref-youtube-vos, ref-davis17, ...; emoji-world is drawn.")
]
RootFlag = Annotated[Path | None, typer.Option(metavar="DIR", help="The dataset's folder, or the one that holds it.")]
SplitFlag = Annotated[str | None, typer.Option(help="Such as valid_u; the one that is scored where none is named.")]
VideosFlag = Annotated[int | None, typer.Option(help="Only the first ones; of emoji-world 400.")]
SeedFlag = Annotated[int, typer.Option(help="Of what is drawn: emoji-world, floors, resampling.")]
FramesFlag = Annotated[int, typer.Option(help="Frames of a video of emoji-world; 1 for pictures.")]
LikenessFlag = Annotated[Path | None, typer.Option(metavar="DIR", help="A CLIP, for anchors by text.")]
ThresholdFlag = Annotated[float, typer.Option(help="Probability above which an object counts as visible.")]
DeviceFlag = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]


@virst.command()
def evaluate(
    dataset: DatasetFlag,
    root: RootFlag = None,
    split: SplitFlag = None,
    predictions: Annotated[
        Path | None, typer.Option(metavar="DIR", help="<video>/<sentence>/<frame>.png; with --model, written there.")
    ] = None,
    output: Annotated[Path, typer.Option(metavar="FILE.json", help="The report.")] = Path("report.json"),
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="Predict with it first: a folder or hub id.")
    ] = None,
    floor: Annotated[str | None, typer.Option(help=f"Score no model: {', '.join(FLOORS)}.")] = None,
    missing_as_empty: Annotated[
        bool, typer.Option("--missing-as-empty", help="Score masks that are missing as empty ones.")
    ] = False,
    policy: Annotated[
        str, typer.Option(help="Which frames are prompted: dynamic, published, uniform, ...")
    ] = "dynamic",
    anchors: Annotated[int | None, typer.Option(help="How many frames are prompted.")] = None,
    attended: Annotated[int, typer.Option(help="How many of them a frame looks at.")] = 3,
    threshold: ThresholdFlag = 0.5,
    likeness: LikenessFlag = None,
    videos: VideosFlag = None,
    seed: SeedFlag = 0,
    frames: FramesFlag = 24,
    device: DeviceFlag = "auto",
) -> None:
    """Score predicted masks: J, F, J&F, R, gIoU, cIoU by family, with 95% intervals over videos."""
    _require_one(predictions, model, floor)
    require_place(output)
    from dynin.evaluation.segmentation.overall import OVERALL_FAMILIES

    opened = _open(dataset, root, split, videos=videos, seed=seed, frames=frames)
    about: dict[str, object] = {**opened.about, "seed": seed}
    listing: Listing | None = None
    if floor is not None:
        pairs, about["floor"] = _floor(floor, opened, seed), floor
    else:
        place = predictions if predictions is not None else Path("predictions")
        if model is not None:
            from dynin.cli import virst_models

            asked = virst_models.Asked(
                policy=policy, num_anchors=anchors, num_attended=attended, threshold=threshold, likeness=likeness
            )
            virst_models.predict(opened.source, model, asked, place, device=device, about=about)
        pairs, listing = _score(opened, place, missing_as_empty)
        about |= {"predictions": str(place), "missing": listing.missing, "extra": listing.extra}
        if dataset == "ref-davis17":
            about["annotators"] = _annotators(opened, place)
    _write(pairs, output, about, seed, OVERALL_FAMILIES.get(dataset, ()))
    for told in [] if listing is None else listing.told():
        typer.echo(told, err=True)


@virst.command()
def submit(
    dataset: DatasetFlag,
    predictions: Annotated[Path, typer.Option(metavar="DIR", help="<video>/<sentence>/<frame>.png")],
    root: RootFlag = None,
    split: SplitFlag = None,
    output: Annotated[Path, typer.Option(metavar="FILE.zip", help="What is sent to the server.")] = Path(
        "submission.zip"
    ),
) -> None:
    """Pack predicted masks as the benchmark's server wants them; every mask is checked first.

    Ref-DAVIS17 has no server; its zip holds the indexed pictures that the scorer of DAVIS 2017 reads.
    """
    from dynin.evaluation.segmentation import davis, submit

    require_place(output)
    source = _open(dataset, root, split, videos=None, seed=0, frames=24).source
    if dataset == "ref-davis17":
        listing = davis.write_annotators_zip(source, predictions, output)
    else:
        listing = submit.write_zip(source, predictions, output, dataset)
    for told in listing.told():
        typer.echo(told, err=True)
    typer.echo(str(output))


@virst.command()
def ablate(
    checkpoints: Annotated[
        Path, typer.Option(metavar="DIR", help="<name>/seed-<n>: both, none, initial, second, mlp, first.")
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Runs and tables; a stopped run goes on there.")],
    table: Annotated[list[str] | None, typer.Option(help="Only this table; may be repeated.")] = None,
    dataset: DatasetFlag = EMOJI_WORLD,
    root: RootFlag = None,
    split: SplitFlag = None,
    videos: VideosFlag = None,
    seed: SeedFlag = 0,
    frames: FramesFlag = 24,
    likeness: LikenessFlag = None,
    threshold: ThresholdFlag = 0.5,
    together: Annotated[
        int, typer.Option(help="Videos asked about at once; 0 asks one sentence at a time, for long videos.")
    ] = 8,
    dtype: Annotated[str, typer.Option(help=f"Of matrix products: {', '.join(DTYPES)}.")] = "float32",
    device: DeviceFlag = "auto",
) -> None:
    """Make the three ablation tables: every setting with every seed, floors beside them, verdicts by the written rules.

    What is expected, and how it is read, is in docs/virst.md. The same command started again goes on where it was, and
    started twice shares the work.
    """
    from dynin.evaluation.segmentation.ablation import TABLES, Plan

    for name in table or ():
        if name not in TABLES:
            raise RequestError(f"unknown table {name!r}{suggest(name, TABLES)}")
    if together < 0:
        raise RequestError(f"--together is {together}; give a number of videos, or 0 to ask one sentence at a time")
    if dtype not in DTYPES:
        raise RequestError(f"unknown --dtype {dtype!r}{suggest(dtype, DTYPES)}")
    is_halved = dtype == "bfloat16_backbone"
    if is_halved and not together:
        raise RequestError("--dtype bfloat16_backbone is for several videos at once; leave --together 0 out")
    from dynin.cli import virst_models
    from dynin.evaluation.segmentation import study, tables

    opened = _open(dataset, root, split, videos=videos, seed=seed, frames=frames)
    asked = study.Study(
        source=opened.source,
        weights=virst_models.fingerprints(checkpoints),
        predictor=virst_models.predictors(checkpoints, threshold=threshold, likeness=likeness, device=device),
        panel=virst_models.panels(
            checkpoints, threshold=threshold, likeness=likeness, device=device, is_halved=is_halved
        )
        if together
        else None,
        num_together=max(1, together),
        about={**opened.about, "threshold": threshold, "dtype": dtype, "machine": virst_models.machine(device)},
        tracks=opened.tracks,
        beside={} if likeness is None else {"text": virst_models.fingerprint(likeness)},
        skipped=frozenset({"text"}) if likeness is None else frozenset(),
        seed=seed,
    )
    bars: dict[tuple[str, int], Progress] = {}

    def show(weights: str, number: int, done: int, total: int) -> None:
        key = (weights, number)
        if key not in bars:
            bars[key] = Progress(f"{weights}, seed {number}: video", total)
        bars[key](done)

    output.mkdir(parents=True, exist_ok=True)
    plan = Plan(tables=tuple(table or TABLES))
    results = study.run(plan, asked, output, show)
    waiting = study.unfinished(plan, asked, output)
    for name in plan.tables:
        if name not in waiting:
            typer.echo(tables.markdown(tables.tabulate(TABLES[name], results, seed, asked.about)))
    typer.echo(f"written to {output}" if not waiting else f"another process is at work on {', '.join(waiting)}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Opened:
    """A split of a dataset, ready to be scored."""

    source: "ReferringSource"
    about: dict[str, object]
    tracks: "Tracks | None"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _First:
    """The first videos of a source."""

    source: "ReferringSource"
    count: int

    def __len__(self) -> int:
        """Number of videos."""
        return min(self.count, len(self.source))

    def examples(self, index: int) -> "list[ReferringExample]":
        """The sentences of a video."""
        return self.source.examples(index)


def _open(name: str, root: Path | None, split: str | None, *, videos: int | None, seed: int, frames: int) -> _Opened:
    """A split by the names that a user gave."""
    from dynin.data.referring.catalogue import open_dataset
    from dynin.data.referring.emoji_world import EmojiReferring

    if videos is not None and not 1 <= videos <= MOST_VIDEOS:
        raise RequestError(f"--videos is {videos}; give a number from 1 to {MOST_VIDEOS}")
    source: ReferringSource
    if name == EMOJI_WORLD:
        if split not in (None, "held_out", "train"):
            raise RequestError(f"emoji-world has no split {split!r}; choose held_out or train")
        chosen: Literal["train", "held_out"] = "train" if split == "train" else "held_out"
        world = EmojiReferring(seed, chosen, num_videos=videos or 400, num_frames=frames)
        about: dict[str, object] = {"dataset": name, "split": chosen, "videos": len(world), "frames": frames}
        return _Opened(source=world, about={**about, "world_seed": seed}, tracks=world.thing_masks)
    if root is None:
        raise RequestError(f"--dataset {name} is read from disk; give its folder with --root DIR")
    source = open_dataset(name, root, split)
    if videos is not None:
        source = _First(source=source, count=videos)
    facts: dict[str, object] = {"dataset": name, "split": split or "as scored", "videos": len(source)}
    return _Opened(source=source, about=facts, tracks=None)


def _require_one(predictions: Path | None, model: str | None, floor: str | None) -> None:
    """RequestError unless it is clear what is to be scored."""
    if floor is not None and floor not in FLOORS:
        raise RequestError(f"unknown floor {floor!r}{suggest(floor, FLOORS)}")
    if floor is not None and (predictions is not None or model is not None):
        raise RequestError("--floor scores no model; leave --predictions and --model out")
    if floor is None and predictions is None:
        raise RequestError(
            "nothing to score: give --predictions DIR (with --model, masks are written there first), or --floor NAME"
        )


def _score(opened: _Opened, place: Path, missing_as_empty: bool) -> "tuple[list[PairScore], Listing]":
    """The pairs of a folder of predictions."""
    from dynin.evaluation.segmentation.score import score_folder

    bar = Progress("scored: video", len(opened.source))
    return score_folder(opened.source, place, missing_as_empty=missing_as_empty, progress=lambda done, total: bar(done))


def _floor(name: str, opened: _Opened, seed: int) -> "list[PairScore]":
    """The pairs of a floor; those that have none, such as pairs without another object, are left out."""
    from dynin.data.referring.source import walk
    from dynin.evaluation.segmentation.floors import AnotherObject
    from dynin.evaluation.segmentation.pair import score_pair
    from dynin.evaluation.segmentation.study import SimpleFloors

    if name == "another-object":
        other = AnotherObject.of(opened.source, seed, opened.tracks)
        return [score_pair(each, other(each)) for each in walk(opened.source) if other.has(each)]
    predict = SimpleFloors[name.replace("-", "_")]
    return [score_pair(each, predict(each)) for each in walk(opened.source)]


def _annotators(opened: _Opened, place: Path) -> dict[str, object]:
    """Ref-DAVIS17 by its customary protocol; says why where it cannot be had."""
    from dataclasses import asdict

    from dynin.errors import DataError
    from dynin.evaluation.segmentation.davis import score_annotators

    try:
        scores = score_annotators(opened.source, place)
    except DataError as error:
        return {"left_out": str(error)}
    means = {
        name: sum(getattr(score, name) for score in scores) / len(scores)
        for name in ("region", "boundary", "region_named", "boundary_named")
    }
    customary = 50 * (means["region"] + means["boundary"])
    named = 50 * (means["region_named"] + means["boundary_named"])
    typer.echo(f"four annotators, objects merged: J&F {customary:.1f} laid as they fit best, {named:.1f} by name")
    return {"mean": means, "annotators": [asdict(score) for score in scores]}


def _write(
    pairs: "list[PairScore]", output: Path, about: dict[str, object], seed: int, overall: tuple[str, ...]
) -> None:
    """The report and its table."""
    import numpy as np

    from dynin.evaluation.segmentation import report
    from dynin.evaluation.segmentation.overall import summarise

    families = {pair.family for pair in pairs}
    summary = summarise(pairs, np.random.default_rng(seed), overall=overall if families >= set(overall) else ())
    report.write(output, pairs, summary, about)
    typer.echo(report.table(summary))
    typer.echo(f"written to {output}")
