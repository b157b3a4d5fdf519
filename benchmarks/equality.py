"""Whether exact decoding is what the published samplers do: `python benchmarks/equality.py --tier S|M`.

Enters: a tier, families. Leaves: a table, and equality-TIER.json in --output, every decision that differs in it; exit
status 1 where one is no near-tie, or fewer than 99.9% of sampled decisions agree. Does not know how fast anything is.

Greedy text is compared for many lengths, blocks, steps and batches, rows padded on the left among them: every id of
what comes out, and every decision in the oracle's own states. Sampled text, pictures and speech are compared decision
by decision, with the numbers that the oracle drew (`dynin.testing.agreement`). Sixteen requests go through the engine
together, and each alone.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import duel
import torch
from decoding_cases import CASES, FAMILIES, SEED, Sizes, Stage, Way, oracle
from decoding_engine import exact_mix, one_after_another, same, together
from torch import Tensor

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.decoder import ParallelDecoder
from dynin.decoding.policy import published_text
from dynin.pipeline.denoiser import PolicyDenoiser
from dynin.testing.agreement import Agreement, NoiseKind, Recorder, synchronised
from dynin.testing.oracle import PublishedNetwork
from dynin.testing.oracle_text import TextSettings, decode_text

WANTED = 0.999
"""Share of sampled decisions that have to agree."""
DRAWS: dict[str, NoiseKind] = {"text": "none", "text-t1": "ratio", "image": "multinomial", "speech": "multinomial"}
EXACT = {"text": "text-exact", "text-t1": "text-t1-exact", "image": "image-exact", "speech": "speech-exact"}

# lengths of prompts, new places, block length, steps
SHAPES: dict[str, list[tuple[tuple[int, ...], int, int, int]]] = {
    "S": [
        ((16,), 32, 32, 32),
        ((16,), 32, 8, 32),
        ((16,), 32, 8, 8),
        ((1,), 8, 4, 8),
        ((3,), 8, 4, 16),
        ((40,), 64, 16, 16),
        ((7, 7), 24, 8, 12),
        ((16, 3), 32, 16, 16),
        ((2, 19, 11), 16, 16, 5),
        ((5, 30, 1, 17), 16, 4, 8),
    ],
    "M": [((32,), 32, 32, 8), ((20, 32), 32, 16, 8)],
}


class _Whole(Stage):
    """A stage whose oracle runs to the end, where that takes seconds."""

    def sizes(self, family: str) -> Sizes:
        sizes = super().sizes(family)
        return replace(sizes, oracle_steps=None) if self.tier == "S" else sizes


def compared(stage: Stage, family: str, way: Way) -> Agreement:
    """Decisions of a family on its prompt."""
    recorder = Recorder()
    oracle(stage, family, recorder)()
    canvas, segment = stage.task(family, way)
    return synchronised(
        recorder.decisions,
        canvas,
        segment,
        PolicyDenoiser(stage.quick(way.dtype)).answer,
        mask_id=stage.vocabulary["mask"],
        draws=DRAWS[family],
    )


def greedy(stage: Stage, lengths: Sequence[int], num_new: int, block_len: int, num_steps: int) -> dict[str, Any]:
    """Greedy text of a batch: what comes out, and decision by decision."""
    names, width = stage.vocabulary, max(lengths)
    generator = torch.Generator().manual_seed(SEED + num_new + sum(lengths))
    prompt = torch.randint(names.text.start, names.text.stop, (len(lengths), width), generator=generator)
    attend = torch.arange(width) >= width - torch.tensor(lengths)[:, None]
    prompt = prompt.masked_fill(~attend, names.pad_id)
    is_padded = not bool(attend.all())
    settings = TextSettings(mask_id=names["mask"], num_new=num_new, num_steps=num_steps, block_len=block_len)
    recorder = Recorder()
    network = PublishedNetwork.of(stage.model())
    expected = decode_text(network, prompt, settings, attend=attend if is_padded else None, observer=recorder)
    ids = torch.nn.functional.pad(prompt, (0, num_new), value=names["mask"])
    whole = torch.nn.functional.pad(attend, (0, num_new), value=True)
    canvas = Canvas(ids=ids, attend=whole if is_padded else None)
    segment = Segment(
        name="text",
        is_target=(torch.arange(ids.shape[1]) >= width).expand_as(ids),
        allowed_ids=None,
        policy=published_text(num_new=num_new, num_steps=num_steps, block_len=block_len),
    )
    denoiser = PolicyDenoiser(stage.quick())
    made = ParallelDecoder(denoiser, names["mask"]).run(canvas, [segment]).ids
    agreement = synchronised(
        recorder.decisions, canvas, segment, PolicyDenoiser(stage.quick()).answer, mask_id=names["mask"]
    )
    alone = [same_alone(stage, segment, canvas, row, made[row], width - length) for row, length in enumerate(lengths)]
    return {
        "family": "greedy text",
        "prompts": list(lengths),
        "num_new": num_new,
        "block_len": block_len,
        "num_steps": num_steps,
        "ids_differ": int((made != expected).sum()),
        "rows_same_alone": sum(alone),
        **told(agreement),
    }


def same_alone(stage: Stage, segment: Segment, canvas: Canvas, row: int, made: Tensor, num_pads: int) -> bool:
    """Whether a row comes out as it does without its neighbours and its padding."""
    ids = canvas.ids[row : row + 1, num_pads:]
    whole = Segment(
        name="text", is_target=segment.is_target[row : row + 1, num_pads:], allowed_ids=None, policy=segment.policy
    )
    mask_id = stage.vocabulary["mask"]
    alone = ParallelDecoder(PolicyDenoiser(stage.quick()), mask_id).run(Canvas(ids=ids), [whole])
    return torch.equal(alone.ids[0], made[num_pads:])


def neighbours(stage: Stage) -> dict[str, Any]:
    """Requests decoded together by the engine, exactly, and each alone."""
    alone, mixed = one_after_another(stage, exact_mix())(), together(stage, exact_mix())()
    differ = sum(int((one != two).sum()) for one, two in zip(alone, mixed, strict=True))
    return {"family": "engine", "requests": len(alone), "same": same(alone, mixed), "ids_differ": differ}


def told(agreement: Agreement) -> dict[str, Any]:
    """An agreement as plain values."""
    return {
        "choices": agreement.num_choices,
        "reveals": agreement.num_reveals,
        "share": agreement.share,
        "largest_gap": max((miss.gap for miss in agreement.misses), default=0.0),
        "is_exact": agreement.is_exact,
        "misses": [asdict(miss) for miss in agreement.misses],
    }


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    if "same" in row:
        return f"{row['same']} of {row['requests']} requests come out of the engine as they do alone"
    what, ids = row["family"], ""
    if "prompts" in row:
        what += f" {row['prompts']} + {row['num_new']}, blocks of {row['block_len']}, {row['num_steps']} steps"
        ids = f", {row['ids_differ']} ids differ, {row['rows_same_alone']} rows as alone"
    gaps = f", largest gap {row['largest_gap']:.1e}" if row["misses"] else ""
    count = row["choices"] + row["reveals"]
    return f"{what:55} {len(row['misses'])} of {count} decisions differ ({row['share']:.3%} agree){gaps}{ids}"


def main() -> None:
    """Compare what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tier", choices=tuple(SHAPES), default="S")
    parser.add_argument("--family", action="append", choices=["greedy", *FAMILIES, "engine"], default=[])
    parser.add_argument("--output", type=Path, default=duel.ROOT / "out" / "bench")
    options = parser.parse_args()
    families = options.family or ["greedy", *FAMILIES, "engine"]
    stage = _Whole(options.tier)
    rows: list[dict[str, Any]] = []
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"equality-{options.tier}.json"

    def put(row: dict[str, Any]) -> None:
        rows.append(row)
        path.write_text(json.dumps({**duel.surroundings(), "rows": rows}, indent=1) + "\n", encoding="ascii")
        print(line(row), flush=True)

    for shape in SHAPES[options.tier] if "greedy" in families else ():
        put(greedy(stage, *shape))
    for family in families:
        if family == "engine":
            put(neighbours(stage))
        elif family != "greedy":
            put({"family": family, **told(compared(stage, family, CASES[EXACT[family]].way))})
    is_right = all(
        row["same"] == row["requests"] if "same" in row else row["is_exact"] and row["share"] >= WANTED for row in rows
    )
    print("as published" if is_right else "NOT as published")
    raise SystemExit(0 if is_right else 1)


if __name__ == "__main__":
    main()
