"""Operations of the published mask branch in two orders of work: `python benchmarks/segment_published_sizes.py`.

Enters: nothing. Leaves: a table, and a JSON. Does not know times: networks of the published size (SAM2.1 with Hiera-L,
1024 px) are built without numbers, so that operations can be counted on any machine.

    ours        every frame is encoded once
    published   the seen frames for each fusion, the first frame, each anchor for its prompt and again for its memory,
                every other frame once more; `tests/unit/virst/test_oracle_virst.py` holds the count

Every frame is decoded and remembered once in both, and looks at memories unless it is an anchor.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from duel import surroundings
from torch.utils.flop_counter import FlopCounterMode

from dynin.virst.branch import build as branches
from dynin.virst.branch.protocol import Pointed, Recalled
from dynin.virst.branch.sam2 import Sam2Branch
from dynin.virst.tracker import TrackerConfig

MOST_READ, MOST_SEEN, ANCHOR_SHARE = 64, 32, 4
"""Frames that the published evaluation reads and sees, and of how many of these one is prompted."""
LARGE = {
    "model_type": "sam2_video",
    "vision_config": {
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 144,
            "embed_dim_per_stage": [144, 288, 576, 1152],
            "num_attention_heads_per_stage": [2, 4, 8, 16],
            "blocks_per_stage": [2, 6, 36, 4],
            "global_attention_blocks": [23, 33, 43],
            "window_positional_embedding_background_size": [7, 7],
            "window_size_per_stage": [8, 4, 16, 8],
        },
        "backbone_channel_list": [1152, 576, 288, 144],
    },
}
"""What differs from the library's default, SAM2.1 with Hiera-T."""


def gflop_of_parts(branch: Sam2Branch) -> dict[str, float]:
    """Of one call of each part: one frame, ten prompts, a look at three anchors and six recent frames."""
    side, found = branch.image_size[0], {}

    def count(name: str, run: object) -> object:
        with FlopCounterMode(display=False) as counter:
            made = run()  # type: ignore[operator]
        found[name] = counter.get_total_flops() / 1e9
        return made

    with torch.no_grad(), torch.device("meta"):
        features = count("encode", lambda: branch.encode(torch.empty(1, 3, side, side)))
        prompts = torch.empty(1, 10, branch.width)
        output = count("decode", lambda: branch.decode(branch.without_memory(features), features, prompts))
        memory = count("remember", lambda: branch.remember(features, output))
        attended = TrackerConfig().num_attended or 0
        steps = [0] * attended + list(range(1, branch.num_recent + 1))
        recalled = [Recalled(memory=memory, steps_back=step) for step in steps]
        pointers = [Pointed(pointer=memory.pointer, distance=1) for _ in range(branch.max_pointers)]
        count("attend", lambda: branch.attend(features, recalled, pointers, max_pointers=branch.max_pointers))
    return found


def calls(num_frames: int, num_fusions: int) -> dict[str, dict[str, int]]:
    """Of each part in both orders, for a video."""
    seen = min(MOST_SEEN, num_frames)
    anchors = max(1, seen // ANCHOR_SHARE)
    both = {"decode": num_frames, "remember": num_frames, "attend": num_frames - anchors}
    again = num_fusions * seen + 1 + 2 * anchors + num_frames - anchors
    return {"ours": {"encode": num_frames, **both}, "published": {"encode": again, **both}}


def main() -> None:
    """Some lengths, with one fusion and with both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--lengths", type=int, nargs="*", default=[32, 48, 100, 300])
    parser.add_argument("--output", default="out/segment-published-sizes.json")
    given = parser.parse_args()
    with torch.device("meta"):
        parts = gflop_of_parts(branches.build(LARGE).eval())
    rows = []
    for length in given.lengths:
        for num_fusions in (1, 2):
            found = calls(length, num_fusions)
            whole = {name: sum(parts[part] * count for part, count in each.items()) for name, each in found.items()}
            rows.append(
                {
                    "length": length,
                    "fusions": num_fusions,
                    "encoded_per_frame": round(found["published"]["encode"] / length, 2),
                    **{f"gflop_per_frame_{name}": round(value / length, 1) for name, value in whole.items()},
                    "ratio": round(whole["published"] / whole["ours"], 2),
                }
            )
            sys.stdout.write("  ".join(f"{key} {value}" for key, value in rows[-1].items()) + "\n")
    report = {**surroundings(), "gflop": {name: round(value, 2) for name, value in parts.items()}, "rows": rows}
    sys.stdout.write(f"{report['gflop']}\n")
    place = Path(given.output)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
