r"""What the stages of a training are worth: held-out examples made on one machine, judged on another.

    python benchmarks/stages.py hear --output heard.json                  # sentences to be heard, as codes; needs flite
    python benchmarks/stages.py make MODEL --heard heard.json --output made/seed0-stage1.json --row t2i --row s2t \
        --loss t2i --loss s2t --speech held.npz
    python benchmarks/stages.py judge made --output scores.json           # needs pocketsphinx; goes on where it stopped
    python benchmarks/stages.py table scores.json

Enters: model folders, and names of `dynin.evaluation.suite`. Leaves: a file a model with what it made, as text or
codes, and its losses; points of every example; a table of scores by arm, with the differences between arms over all
seeds. Does not know how the models were trained: names tell that, `seedN-ARM`.

Making takes a network and an accelerator, judging takes programs that speak and recognise and some patience. Examples,
seeds and policies are those of `dynin evaluate --seed 20261218`, so a model's score is what that command tells.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from dynin.data.example import Example
from dynin.decoding.decoder import ParallelDecoder
from dynin.evaluation.paired import Outcome, difference, outcome, score
from dynin.evaluation.suite import SUITE, Row
from dynin.media.audio import Audio
from dynin.media.files import replace_whole
from dynin.media.image import to_pil
from dynin.pipeline.denoiser import PolicyDenoiser
from dynin.pipeline.dynin import Dynin
from dynin.pipeline.encoding import read as read_encoding
from dynin.pipeline.folder import load
from dynin.pipeline.job import Job
from dynin.pipeline.request import Request
from dynin.pipeline.result import Result
from dynin.sequence.parse import num_before_end
from dynin.tokenizers.bundle import Tokenizers
from dynin.tokenizers.protocol import SpeechTokenizer
from dynin.training import held_out
from dynin.types import Modality

SEED = 20261218
GROUP = 100
"""Examples decoded together."""
LIMITS: Mapping[str, int] = {
    "t2i": 500,
    "i2t": 500,
    "t2t": 500,
    "s2t": 300,
    "t2s": 100,
    "t2t_thinking": 300,
    "t2i_large": 300,
    "i2t_large": 300,
    "s2t_long": 100,
    "t2s_long": 60,
}
"""Examples of each row; fewer where judging takes long."""
HEARD = ("s2t", "s2t_long")
LOSS_ROWS, LOSS_SEED = 400, 20261208
COMPARED = (
    ("merged", "stage1"),
    ("merged", "backbone"),
    ("s2_merged", "s2_stage1"),
    ("s2_merged", "joint"),
    ("s2_stage1", "joint"),
    ("stage3", "s2_merged"),
)
"""Pairs of arms whose difference is told, the first less the second."""
Made = str | list[int]
"""What was made of an example: a text, or codes."""


# ---- examples -------------------------------------------------------------------------------------------------------


def examples(row: Row, limit: int) -> Iterator[Example]:
    """The held-out examples of a row, those of `runner.held_out`, but with sentences in place of sounds."""
    world = row.world(SEED)
    index = found = 0
    while found < limit:
        example = world.sentence(row.task, index)
        index += 1
        if row.is_wanted(example):
            found += 1
            yield example


def hear(output: Path, limits: Mapping[str, int]) -> None:
    """Say what is to be heard, and write it as codes of the embedded model's tokenizer."""
    tokenizers = read_encoding().tokenizers
    content: dict[str, Any] = {"seed": SEED, "fingerprint": tokenizers.fingerprint("speech"), "codes": {}}
    for name in HEARD:
        row = SUITE[name]
        row.require_tools()
        world = row.world(SEED)
        sounds = (world.example(row.task, index).condition[Modality.SPEECH] for index in range(limits[name]))
        content["codes"][name] = [tokenizers.encode(Modality.SPEECH, sound).tolist() for sound in sounds]  # type: ignore[arg-type, union-attr]
    _write(output, content)


class Encoded:
    """A speech tokenizer that is given codes as a sound whose samples tell them; all else is the inner one's."""

    def __init__(self, inner: SpeechTokenizer) -> None:
        """Be like another one."""
        self.inner = inner
        self.codebook_size, self.frame_rate_hz = inner.codebook_size, inner.frame_rate_hz
        self.input_rate_hz, self.output_rate_hz = inner.input_rate_hz, inner.output_rate_hz
        self.styles, self.default_style = inner.styles, inner.default_style

    def sound_of(self, codes: Sequence[int]) -> Audio:
        """Codes as a sound: one code a sample, long enough to count as one."""
        samples = torch.full((max(len(codes) + 1, self.input_rate_hz // 10),), -1.0)
        samples[: len(codes)] = torch.tensor(codes) / self.codebook_size
        return Audio(samples=samples, rate_hz=self.input_rate_hz)

    def encode(self, audio: Audio) -> Int[Tensor, " N"]:
        """The codes of a sound made by `sound_of`."""
        return (audio.samples[audio.samples >= 0] * self.codebook_size).round().long()

    def decode(
        self, codes: Int[Tensor, " N"], style: str | None = None, generator: torch.Generator | None = None
    ) -> Audio:
        """As the inner one."""
        return self.inner.decode(codes, style, generator)

    def fingerprint(self) -> str:
        """As the inner one."""
        return self.inner.fingerprint()


# ---- making ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What one model is asked."""

    rows: Mapping[str, int]
    """Rows of the suite, and how many examples of each."""
    heard: Path
    """What `hear` wrote."""
    losses: Sequence[str] = ()
    """Names of `data.variants.DRAWN`."""
    loss_rows: int = LOSS_ROWS
    speech: str = ""
    """Shards of held-out speech, for the losses."""
    long_speech: str = ""


def make(place: Path, output: Path, wanted: Wanted, device: str) -> None:
    """Let a model make what is wanted; the file is written after every row, and what is in it is not made again."""
    told = json.loads(wanted.heard.read_text())
    model = load(place, device=device)
    if told["seed"] != SEED or told["fingerprint"] != model.tokenizers.fingerprint("speech"):
        raise SystemExit(f"{wanted.heard}: says other sentences or has codes of another tokenizer; `hear` them anew")
    content: dict[str, Any] = {"seed": SEED, "losses": {}, "made": {}}
    if output.exists():
        content = json.loads(output.read_text())
    content["provenance"] = _provenance(place)
    missing = [name for name in wanted.losses if name not in content["losses"]]
    if missing:
        shards = {"speech_shard": wanted.speech, "long_speech_shard": wanted.long_speech}
        found = held_out.losses(model, missing, rows=wanted.loss_rows, seed=LOSS_SEED, **shards)
        content["losses"] |= {name: asdict(one) for name, one in found.items()}
        _write(output, content)
    for name, limit in wanted.rows.items():
        if len(content["made"].get(name, ())) == limit:
            continue
        asked, codes = list(examples(SUITE[name], limit)), told["codes"].get(name)
        done: list[Made] = []
        for start in range(0, limit, GROUP):
            known = codes[:limit][start : start + GROUP] if codes else None
            done += make_group(model, SUITE[name], asked[start : start + GROUP], known, start)
        content["made"][name] = done
        _write(output, content)
        print(f"{place}: {name}", flush=True)


def make_group(
    model: Dynin, row: Row, asked: Sequence[Example], codes: Sequence[Sequence[int]] | None, first: int
) -> list[Made]:
    """Some examples in one batch; the seed of each follows from its number in the row, as in `runner.at_once`."""
    if codes is not None:
        speech = Encoded(model.tokenizers.speech)
        model = _with_speech(model, speech)
        given = [{**e.condition, Modality.SPEECH: speech.sound_of(c)} for e, c in zip(asked, codes, strict=True)]
    else:
        given = [dict(example.condition) for example in asked]
    jobs = [
        model.prepare(Request.to_fulfil(one, "+".join(example.target), seed=SEED + number, size=row.size_px))
        for number, (one, example) in enumerate(zip(given, asked, strict=True), start=first)
    ]
    work, denoiser = model.easel().lay(jobs), PolicyDenoiser(model.model)
    decoder = ParallelDecoder(denoiser, model.vocabulary["mask"])
    decoded = decoder.run(work.canvas, work.segments, generator=work.generators)
    modality = jobs[0].task.targets[0]
    if modality == Modality.TEXT:
        return [model.finish(job, at, decoded, denoiser.effort(at)).text or "" for at, job in enumerate(jobs)]
    return [
        _codes(model, job, modality, decoded.ids[at][decoded.is_target[str(modality)][at]].cpu())
        for at, job in enumerate(jobs)
    ]


def _codes(model: Dynin, job: Job, modality: Modality, ids: Int[Tensor, " N"]) -> list[int]:
    count = num_before_end(model.vocabulary, job.task, modality, ids)
    return model.vocabulary.ids_to_codes(modality, ids[:count]).tolist()


def _with_speech(model: Dynin, speech: SpeechTokenizer) -> Dynin:
    known = model.tokenizers
    tokenizers = Tokenizers(text=known.text, image=known.image, video=known.video, speech=speech)
    return Dynin.assemble(model.model, tokenizers, model.vocabulary)


def _provenance(place: Path) -> dict[str, Any]:
    config = json.loads((place / "backbone" / "config.json").read_text())
    return dict(config.get("provenance", {}))


def _write(output: Path, content: object) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    with replace_whole(output) as fresh:
        fresh.write_text(json.dumps(content) + "\n", encoding="utf-8")


# ---- judging --------------------------------------------------------------------------------------------------------


def judge(folder: Path, output: Path) -> None:
    """Points of every example of every file; written after every row of a file, rows in it are not judged again."""
    content = json.loads(output.read_text()) if output.exists() else {"outcomes": {}, "losses": {}}
    tokenizers = read_encoding().tokenizers
    for path in sorted(folder.glob("*.json")):
        told = json.loads(path.read_text())
        content["losses"][path.stem] = told["losses"]
        known = content["outcomes"].setdefault(path.stem, {})
        for name, made in told["made"].items():
            if len(known.get(name, ())) == len(made):
                continue
            asked = examples(SUITE[name], len(made))
            pairs = zip(asked, made, strict=True)
            results = ((e, result_of(tokenizers, e, m, SEED + number)) for number, (e, m) in enumerate(pairs))
            found = [outcome(name, example, result) for example, result in results]
            known[name] = [[one.points, one.weight] for one in found]
            _write(output, content)
            print(f"{path.stem} {name} {score(found):.4f}", flush=True)
    _write(output, content)


def result_of(tokenizers: Tokenizers, example: Example, made: Made, seed: int) -> Result:
    """What was made, as `Dynin.finish` would hand it over."""
    values: dict[str, Any] = {}
    if isinstance(made, str):
        values["text"] = made
    else:
        (modality,) = example.target
        value = tokenizers.decode(modality, torch.tensor(made).long(), torch.Generator().manual_seed(seed))
        if isinstance(value, Audio):
            values["audio"] = value
        else:
            assert isinstance(value, Tensor)
            values["image"] = to_pil(value)
    return Result(
        task=example.task, finish_reason="length", seed=seed, num_forwards=1, num_columns=1, num_tokens=1, seconds=0.0,
        **{"text": None, "thinking": None, "image": None, "audio": None, "video": None, **values},
    )  # fmt: skip


# ---- telling --------------------------------------------------------------------------------------------------------


def table(path: Path) -> str:
    """Scores and losses by arm and seed, then the differences between arms over all seeds that have both."""
    content = json.loads(path.read_text())
    lines: list[str] = []
    for kind in ("outcomes", "losses"):
        found = {
            model: {name: _figure(kind, value) for name, value in rows.items()} for model, rows in content[kind].items()
        }
        arms = sorted({model.split("-", 1)[1] for model in found})
        for arm in arms:
            of_arm = {model: rows for model, rows in sorted(found.items()) if model.split("-", 1)[1] == arm}
            for name in sorted({name for rows in of_arm.values() for name in rows}):
                values = [rows[name] for rows in of_arm.values() if name in rows]
                each = " ".join(f"{value:.3f}" for value in values)
                lines.append(f"{kind:9} {arm:10} {name:13} mean {sum(values) / len(values):.3f}  seeds {each}")
    for first, second in COMPARED:
        lines += _differences(content["outcomes"], first, second)
    return "\n".join(lines)


def _figure(kind: str, value: Any) -> float:
    return score([Outcome(*one) for one in value]) if kind == "outcomes" else float(value["loss"])


def _differences(outcomes: Mapping[str, Mapping[str, Any]], first: str, second: str) -> list[str]:
    """The first arm less the second, row by row, pooled over seeds; scores are shares of points, 1 at best."""
    seeds = [model.split("-", 1)[0] for model in sorted(outcomes) if model.split("-", 1)[1] == first]
    lines = []
    for name in LIMITS:
        pairs = [
            (outcomes.get(f"{seed}-{second}", {}).get(name), outcomes[f"{seed}-{first}"].get(name)) for seed in seeds
        ]
        both = [(before, after) for before, after in pairs if before and after and len(before) == len(after)]
        if not both:
            continue
        before = [Outcome(*one) for part, _ in both for one in part]
        after = [Outcome(*one) for _, part in both for one in part]
        found = difference(before, after)
        reach = f"{found.ci95[0]:+.3f} to {found.ci95[1]:+.3f}"
        lines.append(f"{first} - {second}: {name:13} {found.mean:+.3f} ({reach}), {len(both)} seeds, n {found.n}")
    return lines


def _limits(named: Sequence[str] | None, scale: float) -> dict[str, int]:
    return {name: max(1, int(limit * scale)) for name, limit in LIMITS.items() if not named or name in named}


def main() -> None:
    """One of the four commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("hear", "make", "judge", "table"))
    parser.add_argument("place", type=Path, nargs="?", help="a model, a folder of what was made, or a file of scores")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--heard", type=Path)
    parser.add_argument("--row", action="append", choices=tuple(LIMITS))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the examples, and of the rows of losses")
    parser.add_argument("--loss", action="append", default=[])
    parser.add_argument("--speech", default="")
    parser.add_argument("--long-speech", default="")
    parser.add_argument("--device", default="cpu")
    told = parser.parse_args()
    if told.command == "hear":
        hear(told.output, LIMITS)
    elif told.command == "make":
        wanted = Wanted(
            rows=_limits(told.row, told.scale),
            heard=told.heard,
            losses=told.loss,
            loss_rows=max(1, int(LOSS_ROWS * told.scale)),
            speech=told.speech,
            long_speech=told.long_speech,
        )
        make(told.place, told.output, wanted, told.device)
    elif told.command == "judge":
        judge(told.place, told.output)
    else:
        print(table(told.place))


if __name__ == "__main__":
    main()
