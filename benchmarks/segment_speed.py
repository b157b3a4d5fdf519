"""Frames per second of segmenting, beside the published order of work: `python benchmarks/segment_speed.py`.

Enters: a VIRST (the one that ships), held-out videos of Emoji World as MP4 files, each with one sentence. Leaves: a
table, and a JSON with every turn, calls and floating-point operations of each part. Does not know how masks are found.

    ours        `Segmenter`, as `dynin segment` uses it: adapters in their matrices, lighter parts, a thread that reads
                and encodes ahead; published anchors and no judgement of a sentence by all frames (`least_presence`), so
                that the masks can be compared
    published   `testing.oracle_virst`: the same networks in the published order, adapters beside their matrices; the
                image encoder is as light as ours, since published code wastes nothing there
    reordered   the published order with all lighter parts: what is left of the ratio is due to order alone

A turn goes through all videos of a length, from the file to the masks; loading the model is left out. Turns alternate
(A B C C B A); the JSON holds what speaks against a ratio, such as a load above the number of cores (`duel.objections`).
With `--device` all sides compute there; masks are asked for as arrays, so a turn waits for the device. Operations are
those that `torch.utils.flop_counter` counts: products, convolutions, attention.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import torch
import transformers
from duel import Turn, alternate, objections, spread, summary, surroundings
from torch.utils.flop_counter import FlopCounterMode

from dynin.cli.device import resolve
from dynin.data.referring.emoji_world import EmojiReferring
from dynin.data.referring.example import ReferringExample
from dynin.media.stream import FrameFile, open_frames
from dynin.testing import oracle_virst
from dynin.virst import folder, frozen
from dynin.virst.anchors import Published
from dynin.virst.model import Virst
from dynin.virst.models import EMBEDDED_FOLDER, load
from dynin.virst.segment import SegmentConfig, Segmenter
from dynin.virst.tracker import TrackerConfig

WORLD_SEED = 7
FAMILY = "motion"
PARTS = ("encode", "attend", "decode", "remember")
Masks = list[np.ndarray]


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A video as a file, and a sentence about it."""

    source: FrameFile
    sentence: str


def write_clips(place: Path, num_frames: int, count: int) -> list[Clip]:
    """The first videos of the held-out world that have a sentence about motion, at their own size."""
    world, clips = EmojiReferring(WORLD_SEED, "held_out", num_frames=num_frames), []
    for index in range(10 * count):
        found = [each for each in world.examples(index) if each.family == FAMILY]
        if found and len(clips) < count:
            path = place / f"{num_frames}-{index}.mp4"
            _write(path, found[0])
            clips.append(Clip(source=open_frames(path), sentence=found[0].sentence))
    return clips


def _write(path: Path, example: ReferringExample) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, width=example.width, height=example.height, pix_fmt="yuv444p")
        for at in range(len(example)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(example.read_frame(at), format="rgb24")))
        container.mux(stream.encode())


@dataclass(kw_only=True, slots=True)
class Count:
    """Calls of parts, frames that went through them, and operations."""

    calls: dict[str, int] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)
    gflop: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, frames: int, flops: int) -> None:
        """One more call."""
        self.calls[name] = self.calls.get(name, 0) + 1
        self.frames[name] = self.frames.get(name, 0) + frames
        self.gflop[name] = self.gflop.get(name, 0.0) + flops / 1e9

    def per_frame(self, num_frames: int) -> dict[str, dict[str, float]]:
        """By part."""
        return {
            name: {
                "calls": round(self.calls[name] / num_frames, 3),
                "frames": round(self.frames[name] / num_frames, 3),
                "gflop": round(self.gflop[name] / num_frames, 5),
            }
            for name in self.calls
        }


def counted(model: Virst, run: Callable[[], object]) -> Count:
    """What a run calls of a model."""
    count = Count()
    places = [(model.branch, name) for name in PARTS] + [(model, name) for name in ("prepared", "read")]
    places.append((model.second, "forward"))
    places += [] if model.initial is None else [(model.initial, "forward")]
    names = {id(model.second): "second fusion", id(model.initial): "initial fusion"}
    for owner, name in places:
        setattr(owner, name, _counting(getattr(owner, name), names.get(id(owner), name), count))
    try:
        run()
    finally:
        for owner, name in places:
            delattr(owner, name)
    return count


def _counting(plain: Callable[..., object], name: str, count: Count) -> Callable[..., object]:
    def call(*given: object, **named: object) -> object:
        with FlopCounterMode(display=False) as counter:
            found = plain(*given, **named)
        count.add(name, len(given[0]) if name == "encode" else 1, counter.get_total_flops())  # type: ignore[arg-type]
        return found

    return call


def compare(
    runs: dict[str, Callable[[], list[Masks]]], num_frames: int, repeats: int
) -> tuple[dict[str, object], dict[str, list[Turn]]]:
    """Masks first, then turns."""
    first, *_ = (masks := {name: run() for name, run in runs.items()})
    differing = {
        name: int(
            sum(
                (a != b).sum()
                for one, other in zip(masks[first], made, strict=True)
                for a, b in zip(one, other, strict=True)
            )
        )
        for name, made in masks.items()
    }
    turns = alternate(runs, repeats)
    rows: dict[str, object] = {
        "num_frames": num_frames,
        "num_px": int(sum(mask.size for one in masks[first] for mask in one)),
        "differing_px": differing,
        "sides": {name: summary(taken, 1) for name, taken in turns.items()},
        "frames_per_s": {name: spread([num_frames / turn.wall_s for turn in taken]) for name, taken in turns.items()},
    }
    reasons = {name: objections(turns[first], taken, os.cpu_count() or 1) for name, taken in turns.items()}
    medians = {
        name: {kind: spread([getattr(turn, kind) for turn in taken])["median"] for kind in ("wall_s", "cpu_s")}
        for name, taken in turns.items()
    }
    rows["reasons"] = reasons
    rows["ratio"] = {
        name: {kind: round(value / medians[first][kind], 2) for kind, value in found.items()}
        for name, found in medians.items()
    }
    return rows, turns


def one_sentence(clips: Sequence[Clip], repeats: int, device: torch.device) -> dict[str, object]:
    """Ours against the published order, a sentence for each video."""
    ours = load(device=device)
    published, reordered = (folder.load(EMBEDDED_FOLDER, device=device) for _ in range(2))
    frozen.lighten(published.branch.network, frozen.ENCODER)
    frozen.settle(reordered, folds=False)
    segmenter = Segmenter(ours, SegmentConfig(anchors=Published(), least_presence=0.0))

    def by_us() -> list[Masks]:
        return [[found.mask for found in segmenter.segment(clip.source, clip.sentence)] for clip in clips]

    def by(model: Virst) -> Callable[[], list[Masks]]:
        how = {"anchors": Published(), "tracker": TrackerConfig()}
        return lambda: [oracle_virst.segment(model, clip.source, clip.sentence, **how) for clip in clips]

    num_frames = sum(clip.source.num_frames for clip in clips)
    runs = {"ours": by_us, "published": by(published), "reordered": by(reordered)}
    rows, _ = compare(runs, num_frames, repeats)
    rows["per_frame"] = {
        name: counted(model, runs[name]).per_frame(num_frames)
        for name, model in {"ours": ours, "published": published}.items()
    }
    return rows


def tell(row: dict[str, object], threads: int) -> None:
    """A few lines."""
    frames, ratio, differing = row["frames_per_s"], row["ratio"], row["differing_px"]
    for name, rates in frames.items():  # type: ignore[attr-defined]
        sys.stdout.write(
            f"{row['videos']} videos of {row['length']} frames, {threads} threads, {name:10} "
            f"{rates['median']:6.1f} frames/s ({rates['p10']:.1f} to {rates['p90']:.1f}), "
            f"ours is {ratio[name]['wall_s']:.2f} times as fast ({ratio[name]['cpu_s']:.2f} by processor time), "  # type: ignore[index]
            f"{differing[name]} of {row['num_px']} px differ\n"  # type: ignore[index]
        )
    for name, parts in row["per_frame"].items():  # type: ignore[attr-defined]
        told = ", ".join(f"{part} {each['calls']:.2f} ({each['gflop']:.3f})" for part, each in parts.items())
        sys.stdout.write(f"    calls (GFLOP) for a frame, {name}: {told}\n")
    sys.stdout.flush()


def main() -> None:
    """Every length, with every number of threads."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--lengths", type=int, nargs="*", default=[12, 48])
    parser.add_argument("--videos", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, mps")
    parser.add_argument("--output", default="out/segment-speed.json")
    given = parser.parse_args()
    rows, device = [], resolve(given.device)
    with tempfile.TemporaryDirectory() as name:
        for length in given.lengths:
            clips = write_clips(Path(name), length, given.videos)
            for threads in given.threads:
                torch.set_num_threads(threads)
                row = one_sentence(clips, given.repeats, device)
                rows.append({"length": length, "videos": len(clips), "threads": threads, **row})
                tell(rows[-1], threads)
    place_of_work = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    about = {
        **surroundings(),
        "device": place_of_work,
        "transformers": transformers.__version__,
        "world_seed": WORLD_SEED,
    }
    report = {**about, "rows": rows}
    place = Path(given.output)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
