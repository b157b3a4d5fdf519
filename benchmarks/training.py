"""Speed of a training step beside the machine's floor: `python benchmarks/training.py --device cuda`.

Enters: names of cases, all of them by default, a size, the machine's peak. Leaves: a table, and training.json in a
folder, written anew after every case. Does not know how a step works: it calls the trainer's own parts. A further case
is its row in `CASES`.

A step is what `training.loop.train` does in one: hide targets, run forward and back over every batch, clip, move the
weights, move the average. Rows are ids drawn at random, all of one length, so that every place is real; they are laid
out before the clock runs, as the trainer lays them out in the background. Steps of warm-up, in which blocks are
compiled, are told apart.

Two counts of the arithmetic stand beside each other; neither counts what is computed twice (recomputing) or beside the
network (the matrices that Muon turns):

    needed     6 x numbers in the blocks and 12 x layers x width x length for each place (attention in both directions),
               6 x width x ids that compete for each place that is scored; looking up an embedding is no arithmetic
    6N         6 x all numbers, tables included, and the same for attention: the usual rule, too high by both tables

`share of peak` is needed arithmetic over time and `--peak`; `share of matmul` over the best product of two large
bfloat16 matrices on the same machine, measured first.
"""

import argparse
import json
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from dynin.model.config import ModelConfig
from dynin.model.transformer import Transformer, initialise
from dynin.sequence import layout
from dynin.sequence.batch import Batch, pack
from dynin.sequence.task import PUBLISHED_TASKS
from dynin.training import loop, optim
from dynin.training.config import TrainConfig
from dynin.training.objective import ENDS, Hidden, LossModule, Objective, ObjectiveConfig
from dynin.types import Modality
from dynin.vocabulary import PUBLISHED


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What one training is like."""

    task: str
    """t2i: text is given and a picture made, 8,192 ids compete; t2t: text of all 126,080 pieces is made."""
    is_long: bool = False
    """Rows of the longer of the size's two lengths."""
    compile: bool = False
    recompute: bool = False


CASES = {
    "1k eager": Case(task="t2i"),
    "1k compiled": Case(task="t2i", compile=True),
    "2k text, eager": Case(task="t2t", is_long=True),
    "1k eager, recomputed": Case(task="t2i", recompute=True),
    "1k compiled, recomputed": Case(task="t2i", compile=True, recompute=True),
    "2k text, compiled": Case(task="t2t", is_long=True, compile=True),
}
"""In the order in which they are run; the last ones are left out when time is short."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """A network and what it is fed."""

    width: int
    num_heads: int
    num_layers: int
    lengths: tuple[int, int]
    """Places of a short and of a long row."""
    places_per_batch: int
    batches_per_step: int
    product: int
    """Side of the matrices whose product is the practical ceiling."""

    def network(self) -> ModelConfig:
        """The proportions and the vocabulary of the published model."""
        return ModelConfig(
            d_model=self.width,
            num_heads=self.num_heads,
            num_kv_heads=self.num_heads,
            num_layers=self.num_layers,
            mlp_dim=3 * self.width,
            num_rows=PUBLISHED.size,
            max_len=4096,
        )


SIZES = {
    "1b": Size(
        width=2048, num_heads=16, num_layers=12, lengths=(1152, 2048),
        places_per_batch=18_432, batches_per_step=2, product=8192,
    ),
    "tiny": Size(
        width=64, num_heads=2, num_layers=2, lengths=(288, 320),
        places_per_batch=640, batches_per_step=2, product=512,
    ),
}  # fmt: skip
TASKS = {"t2i": (Modality.TEXT, Modality.IMAGE), "t2t": (Modality.TEXT, Modality.TEXT)}
GIVEN = {"t2i": 1 / 9, "t2t": 1 / 2}
"""Share of a row that is given: of 1,152 places 128 are words and 1,024 a picture."""


def synchronize(device: torch.device) -> None:
    """Wait until everything is computed."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_bytes(device: torch.device) -> int:
    """The most memory held since `forget_peak`; 0 where that is not known."""
    return 0 if device.type == "cpu" else torch.accelerator.max_memory_allocated(device)


def forget_peak(device: torch.device) -> None:
    """Give back what is not used, and count the peak anew."""
    if device.type != "cpu":
        torch.accelerator.empty_cache()
        torch.accelerator.reset_peak_memory_stats(device)


def matmul_flops(side: int, device: torch.device) -> float:
    """Floating-point operations a second of the product of two square matrices in bfloat16."""
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        synchronize(device)
        start = time.perf_counter()
        for _ in range(5):
            one @ other
        synchronize(device)
        best = min(best, (time.perf_counter() - start) / 5)
    return 2 * side**3 / best


def draw(case: Case, size: Size) -> list[layout.Sequence]:
    """The rows of one step."""
    length = size.lengths[case.is_long]
    generator = torch.Generator().manual_seed(0)
    given = int(length * GIVEN[case.task])
    spans, parts, start = [], [], 0
    for modality, count, is_target in zip(TASKS[case.task], (given, length - given), (False, True), strict=True):
        ids = PUBLISHED.range_of(modality)
        parts.append(
            torch.randint(ids.start, ids.stop, (size.batches_per_step * _rows(case, size), count), generator=generator)
        )
        spans.append(layout.Span(modality=modality, is_target=is_target, start=start, stop=start + count))
        start += count
    is_target = torch.arange(length) >= given
    everywhere = torch.ones(length, dtype=torch.bool)
    return [
        layout.Sequence(
            task=PUBLISHED_TASKS[case.task], ids=ids, is_target=is_target, attend=everywhere, spans=tuple(spans)
        )
        for ids in torch.cat(parts, dim=1)
    ]


def _rows(case: Case, size: Size) -> int:
    return size.places_per_batch // size.lengths[case.is_long]


class Training:
    """The state of one case's run, and its step."""

    def __init__(self, case: Case, size: Size, device: torch.device) -> None:
        self.case, self.size, self.device = case, size, device
        self.config = TrainConfig(
            name="benchmark",
            steps=1000,
            tasks={case.task: 1.0},
            dtype="bfloat16",
            compile=case.compile,
            recompute=case.recompute,
            tokens_per_batch=size.places_per_batch,
        )
        with device:
            self.model = Transformer(size.network())
        initialise(self.model, torch.Generator(device).manual_seed(0))
        self.objective = Objective(PUBLISHED, ObjectiveConfig())
        self.root: LossModule = loop.prepare(self.model, self.objective, self.config)
        self.optimizers = optim.build(self.model, self.config.optimizer)
        self.average = optim.Average(self.model, self.config.optimizer.average_decay)
        self.batches: list[Batch] = pack(
            draw(case, size), pad_id=PUBLISHED.pad_id, tokens_per_batch=size.places_per_batch
        )

    def hide(self, step: int) -> list[Hidden]:
        """What the trainer's helpers make in the background: the batches of a step with what is hidden in them."""
        return [
            self.objective.hide(batch, generator=torch.Generator().manual_seed(7919 * step + index))
            for index, batch in enumerate(self.batches)
        ]

    def gradients(self, hidden: Sequence[Hidden], step: int) -> None:
        """Forward and back."""
        loop.gradients(self.root, hidden, step, self.config)

    def update(self, step: int) -> None:
        """What follows once gradients are there."""
        optim.set_rates(self.optimizers, optim.share_of_peak(step, self.config.steps, self.config.optimizer))
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.max_grad_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self.model.zero_grad(set_to_none=True)
        self.average.update(self.model, step)


def timed(action: Callable[[], object], device: torch.device) -> float:
    """Seconds that something takes, the device included."""
    synchronize(device)
    start = time.perf_counter()
    action()
    synchronize(device)
    return time.perf_counter() - start


def measure(case: Case, size: Size, device: torch.device, num_steps: int) -> dict[str, object]:
    """Warm up, run, count."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    forget_peak(device)
    training = Training(case, size, device)

    numbers = range(2, 2 + num_steps)
    made = {number: training.hide(number) for number in range(4 + num_steps)}

    def step(number: int) -> None:
        training.gradients(made[number], number)
        training.update(number)

    warm_up = [timed(lambda number=number: step(number), device) for number in range(2)]
    seconds = timed(lambda: [step(number) for number in numbers], device) / num_steps
    apart = 2 + num_steps
    parts = {
        "gradients_s": timed(lambda: training.gradients(made[apart], apart), device),
        "update_s": timed(lambda: training.update(apart), device),
    }
    config, tokens = size.network(), sum(int(batch.attend.sum()) for batch in training.batches)
    scored = sum(int((hidden.weights > 0).sum()) for number in numbers for hidden in made[number]) / num_steps
    modality = TASKS[case.task][1]
    num_choices = len(PUBLISHED.allowed_ids(modality, *ENDS.get(modality, ())))
    in_blocks = sum(parameter.numel() for parameter in training.model.blocks.parameters())
    in_all = sum(parameter.numel() for parameter in training.model.parameters())
    attention = 12 * config.num_layers * config.d_model * size.lengths[case.is_long] * tokens
    return {
        "parameters": in_all,
        "parameters_in_blocks": in_blocks,
        "length": size.lengths[case.is_long],
        "tokens_per_step": tokens,
        "is_unpadded": all(bool(batch.attend.all()) for batch in training.batches),
        "scored_per_step": scored,
        "num_choices": num_choices,
        "warm_up_s": warm_up,
        "step_s": seconds,
        **parts,
        "tokens_per_s": tokens / seconds,
        "needed_flops": 6 * in_blocks * tokens + attention + 6 * config.d_model * num_choices * scored,
        "rule_flops": 6 * in_all * tokens + attention,
        "peak_bytes": peak_bytes(device),
        "graphs": torch._dynamo.utils.counters["stats"]["unique_graphs"],
        "stalls": stalls(lambda: step(apart + 1), device),
    }


def stalls(action: Callable[[], object], device: torch.device) -> dict[str, int]:
    """How often each line waits for the device; found where the device is one of CUDA."""
    if device.type != "cuda":
        return {}
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as met:
            warnings.simplefilter("always")
            action()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    met = [one for one in met if "synchroniz" in str(one.message)]
    found = Counter(f"{'/'.join(Path(one.filename).parts[-2:])}:{one.lineno}" for one in met)
    return dict(found.most_common(20))


def profile(case: Case, size: Size, device: torch.device, path: Path) -> None:
    """Write which kernels one step spends its time in."""
    training = Training(case, size, device)
    made = [training.hide(number) for number in range(3)]
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    for number in range(2):
        training.gradients(made[number], number)
        training.update(number)
    with torch.profiler.profile(activities=kinds) as met:
        training.gradients(made[2], 2)
        training.update(2)
        synchronize(device)
    order = "self_device_time_total" if device.type != "cpu" else "self_cpu_time_total"
    path.write_text(met.key_averages().table(sort_by=order, row_limit=40, max_name_column_width=90))


def told(rows: Sequence[dict[str, object]], peak: float, matmul: float) -> str:
    """The figures as a table."""
    lines = [
        "| case | tokens/s | ceiling, needed | ceiling, 6N | share of peak | of matmul | 6N of peak | step s "
        "| of it update | peak GB | first steps s |",
        "| --- " + "| --- " * 10 + "|",
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['case']} | {str(row['error']).splitlines()[-1]} |")
            continue
        tokens, needed, rule, step = (row[key] for key in ("tokens_per_step", "needed_flops", "rule_flops", "step_s"))
        lines.append(
            f"| {row['case']} | {tokens / step:,.0f} | {tokens * matmul / needed:,.0f} | {tokens * matmul / rule:,.0f} "
            f"| {needed / step / peak:.1%} | {needed / step / matmul:.1%} | {rule / step / peak:.1%} | {step:.3f} "
            f"| {row['update_s']:.3f} | {row['peak_bytes'] / 1e9:.1f} "
            f"| {', '.join(f'{seconds:.1f}' for seconds in row['warm_up_s'])} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run cases, write, tell."""
    began = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--size", choices=list(SIZES), default="1b")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--peak", type=float, default=989e12, help="operations a second; 989e12 is an H100's in bfloat16"
    )
    parser.add_argument("--steps", type=int, default=3, help="steps that are timed")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no case after so many")
    parser.add_argument("--profile", choices=list(CASES), help="write the kernels of one step of a case, at the end")
    parser.add_argument("--out", type=Path, default=Path("out"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    device, size = torch.device(options.device), SIZES[options.size]
    matmul = matmul_flops(size.product, device)
    about = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "torch": torch.__version__,
        "size": options.size,
        "peak_flops": options.peak,
        "matmul_flops": matmul,
    }
    print(about, f"{time.perf_counter() - began:.1f} s", flush=True)
    rows: list[dict[str, object]] = []
    for name in options.case or list(CASES):
        if time.perf_counter() - began > options.seconds:
            print(f"{name}: left out, {time.perf_counter() - began:.0f} s are gone", flush=True)
            continue
        row: dict[str, object] = {"case": name, **asdict(CASES[name])}
        try:
            rows.append(row | measure(CASES[name], size, device, options.steps))
        except Exception:  # noqa: BLE001 - the other cases may still run
            rows.append(row | {"error": traceback.format_exc()})
        (options.out / "training.json").write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")
        print(f"{time.perf_counter() - began:.1f} s", json.dumps(rows[-1]), flush=True)
    table = told(rows, options.peak, matmul)
    (options.out / "training.md").write_text(table + "\n")
    print(table, flush=True)
    if options.profile and time.perf_counter() - began < options.seconds:
        profile(CASES[options.profile], size, device, options.out / "profile.txt")


if __name__ == "__main__":
    main()
