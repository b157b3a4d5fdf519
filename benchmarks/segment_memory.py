"""Memory of `dynin segment` against the length of the video: `python benchmarks/segment_memory.py`.

Enters: numbers of frames, 600 and 10,000 by default. Leaves: a table, and out/segment_memory.json. Does not know how
masks are found.

Every length runs in a process of its own, on the VIRST that ships and a clip of Emoji World's things that move: it
segments a clip of 64 frames first, so that code, kernels and buffers are there, then the clip, an MP4, written as
overlay video and as run lengths. Told is the peak of the process's resident memory. Anchors are those of the published
policy: they are there whatever the weights say, so that memories are made and looked at.

glibc keeps what was freed in small pieces; processes run with MALLOC_MMAP_THRESHOLD_ at 128 KB, as in
`benchmarks/memory.py`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from duel import surroundings

from dynin.data.referring.emoji_world import MOST_FRAMES, EmojiReferring
from dynin.media.stream import open_frames, writing_mp4
from dynin.virst import outputs
from dynin.virst.anchors import policy_of
from dynin.virst.models import load
from dynin.virst.segment import SegmentConfig, Segmenter

WARM_FRAMES = 64
SENTENCE = "the dog"


def write_clip(path: Path, num_frames: int, side_px: int) -> None:
    """Videos of Emoji World, one after another."""
    with writing_mp4(path, side_px, side_px, 25.0) as writer:  # small frames are enlarged to 256 px
        for at in range(num_frames):
            index, frame = divmod(at, MOST_FRAMES)
            if frame == 0:
                world = EmojiReferring(2, "held_out", num_frames=MOST_FRAMES, side_px=side_px)
                example = world.examples(index)[0]
            writer.write(example.read_frame(frame), at / 25)


def segment(found: Segmenter, clip: Path, folder: Path) -> float:
    """Seconds for a clip, overlay and run lengths written."""
    source = open_frames(clip)
    about = outputs.About(
        name=clip.name,
        sentence=SENTENCE,
        num_frames=source.num_frames,
        height=source.height,
        width=source.width,
        rate_hz=source.rate_hz,
    )
    places = [folder / f"{clip.stem}-masks{suffix}" for suffix in (".mp4", ".json")]
    started = time.monotonic()
    with outputs.writing(places, about) as sink:
        for mask in found.segment(source, about.sentence):
            sink.write(mask)
    return time.monotonic() - started


def peak_mb() -> float:
    """Highest resident memory of this process so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def measure(folder: Path, num_frames: int, policy: str) -> dict[str, float]:
    """One length, in this process."""
    torch.set_num_threads(1)
    found = Segmenter(load(), SegmentConfig(anchors=policy_of(policy)))
    segment(found, folder / f"{WARM_FRAMES}.mp4", folder)
    before = peak_mb()
    seconds = segment(found, folder / f"{num_frames}.mp4", folder)
    return {
        "frames": num_frames,
        "peak_mb": round(peak_mb(), 1),
        "peak_of_warming_up_mb": round(before, 1),
        "frames_per_s": round(num_frames / seconds, 1),
    }


def main() -> None:
    """Every length in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--frames", type=int, nargs="*", default=[600, 10_000])
    parser.add_argument("--policy", default="published")
    parser.add_argument("--side", type=int, default=64, help="of the drawn frames, 64, 96 or 128 px")
    parser.add_argument("--in-folder", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.in_folder:
        sys.stdout.write(json.dumps(measure(Path(given.in_folder), given.frames[0], given.policy)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in dict.fromkeys([WARM_FRAMES, *given.frames]):
            write_clip(folder / f"{count}.mp4", count, given.side)
        for count in given.frames:
            command = [sys.executable, __file__, "--in-folder", name, "--frames", str(count), "--policy", given.policy]
            environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(128 << 10), "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            sys.stdout.write("  ".join(f"{key} {value}" for key, value in rows[-1].items()) + "\n")
            sys.stdout.flush()
    Path("out").mkdir(exist_ok=True)
    Path("out/segment_memory.json").write_text(
        json.dumps({"policy": given.policy, "rows": rows, **surroundings()}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
