"""The network of tier L and what a device can do at most: shapes, drawn weights, float8, rates, floors.

Enters: a share of the width, a device. Leaves: networks with drawn weights, and milliseconds that nothing can beat.
Does not know how anything is decoded.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynin.model.config import PUBLISHED_8B, ModelConfig
from dynin.model.transformer import Transformer

FLOAT8 = "float8"
Quantise = Callable[[Tensor], tuple[Tensor, Tensor]]
_LARGEST = 448.0
"""Of float8 with four bits of exponent."""
ATTENTION_SHARE = 500 / 790
"""Of the rate of products that attention reaches at these lengths."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What is decoded on which network."""

    config: ModelConfig
    text_len: int = 256
    image_len: int = 1024
    speech_len: int = 512
    short_prompt: int = 128
    long_prompt: int = 1024
    batches: tuple[int, ...] = (1, 8, 32)
    divided: int = 1
    """By which blocks are shorter than usual."""

    @classmethod
    def whole(cls, width: float) -> "Shape":
        """The published network at a share of its width; layers, rows and the width of a head stay."""
        heads = max(1, round(PUBLISHED_8B.num_heads * width))
        config = replace(
            PUBLISHED_8B,
            d_model=heads * PUBLISHED_8B.head_dim,
            num_heads=heads,
            num_kv_heads=heads,
            mlp_dim=round(PUBLISHED_8B.mlp_dim * width),
        )
        return cls(config=config)

    @classmethod
    def rehearsed(cls, width: float) -> "Shape":
        """The same rows, short enough for a processor."""
        whole = cls.whole(width)
        return replace(
            whole,
            config=replace(whole.config, num_layers=2),
            text_len=16,
            image_len=16,
            speech_len=64,
            short_prompt=8,
            long_prompt=16,
            batches=(1, 2),
            divided=4,
        )

    def block(self, usual: int) -> int:
        """The length of a block."""
        return max(1, usual // self.divided)


class Float8Linear(nn.Module):
    """A matrix in 8 bits with a scale for each of its rows; what it multiplies is brought to 8 bits row by row."""

    def __init__(self, weight: Tensor, quantise: "Quantise | None" = None) -> None:
        """Keep the matrix (out, in), and what brings rows to 8 bits."""
        super().__init__()
        self._quantise: Quantise = quantise or in_float8
        values, scale = in_float8(weight)
        self.values = nn.Buffer(values)
        self.scale = nn.Buffer(scale.t().contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Multiply, in the dtype of `x`."""
        values, scale = self._quantise(x.flatten(0, -2))
        made = torch._scaled_mm(values, self.values.t(), scale_a=scale, scale_b=self.scale, out_dtype=x.dtype)
        return made.view(*x.shape[:-1], -1)


def in_float8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in 8 bits, and the scale (rows, 1) of each."""
    scale = x.abs().amax(dim=-1, keepdim=True).float().clamp_min(1e-12) / _LARGEST
    return (x / scale).clamp(-_LARGEST, _LARGEST).to(torch.float8_e4m3fn), scale


@torch.no_grad()
def draw_network(shape: Shape, device: torch.device) -> Transformer:
    """The network in bfloat16, drawn where it is used."""
    with torch.device("meta"):
        model = Transformer(shape.config)
    model = model.to(torch.bfloat16).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0)
        else:
            parameter.normal_(0.0, 0.02, generator=generator)
    return model.eval().requires_grad_(False)


def joined(device: torch.device) -> tuple[Quantise, str]:
    """`in_float8` in one operation where the device's compiler is there, and what became of it."""
    if device.type != "cuda":
        return in_float8, "apart"
    made = torch.compile(in_float8, dynamic=True)
    x = torch.ones(4, 4096, device=device, dtype=torch.bfloat16)
    try:
        values, scale = made(x)
        made(torch.ones(3, 256, device=device, dtype=torch.bfloat16))
        expected = in_float8(x)
    except Exception as error:  # whatever a compiler raises, it can be done without it
        return in_float8, f"apart: {type(error).__name__}: {str(error).strip()[:200]}"
    is_equal = bool(torch.equal(values.float(), expected[0].float())) and bool(torch.equal(scale, expected[1]))
    return made, "joined" if is_equal else "joined, and rounded otherwise"


@torch.no_grad()
def float8_copy(model: Transformer, quantise: Quantise = in_float8) -> Transformer:
    """The same network with the blocks' matrices in 8 bits; the two tables are shared."""
    with torch.device("meta"):
        copy = Transformer(model.config)
    copy.embed, copy.norm, copy.output = model.embed, model.norm, model.output
    for target, source in zip(copy.blocks, model.blocks, strict=True):
        for name, part in source.named_modules():
            if isinstance(part, nn.Linear):
                owner, _, leaf = name.rpartition(".")
                setattr(target.get_submodule(owner), leaf, Float8Linear(part.weight, quantise))
            elif name.endswith("norm"):
                setattr(target, name, part)
    return copy.eval()


def holds_float8(model: Transformer) -> bool:
    """Whether the matrices of the blocks are in 8 bits."""
    return any(isinstance(part, Float8Linear) for part in model.modules())


def measured_rates(device: torch.device) -> dict[str, float]:
    """TFLOP/s of products and TB/s of copies, reads and writes counted; float8 where the device has it."""
    side, size = (8192, 2**30) if device.type == "cuda" else (512, 2**22)
    x = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    rates = {"bfloat16_tflops": 2e-12 * side**3 / _seconds(lambda: F.linear(x, x), device)}
    source = torch.zeros(size, device=device, dtype=torch.int16)
    target = torch.empty_like(source)
    rates["copy_tb_s"] = 2e-12 * source.nbytes / _seconds(lambda: target.copy_(source), device)
    try:
        linear = Float8Linear(x)
        values, scale = in_float8(x)
        rates["float8_tflops"] = 2e-12 * side**3 / _seconds(
            lambda: torch._scaled_mm(values, linear.values.t(), scale, linear.scale, out_dtype=torch.bfloat16), device
        )  # fmt: skip
    except (RuntimeError, AttributeError) as error:
        print(f"no float8 here: {str(error).splitlines()[0]}")
    return rates


def _seconds(run: Callable[[], object], device: torch.device, often: int = 10) -> float:
    """The median of a few runs."""
    taken = []
    for _ in range(often):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
    return median(taken[1:])


class Floors:
    """The least time that a pass can take at given rates."""

    def __init__(self, shape: Shape, rates: dict[str, float]) -> None:
        """Keep both."""
        self._config, self._rates = shape.config, rates

    def ms(
        self,
        num_columns: float,
        context: int,
        num_logits: float,
        num_ids: int | None = None,
        *,
        batch: int = 1,
        is_float8: bool = False,
    ) -> float:
        """Milliseconds of one pass.

        Args:
            num_columns: Columns computed, over all rows.
            context: Columns that each attends to.
            num_logits: Places with logits.
            num_ids: Ids over which they are wanted; all of them where None.
            batch: Sequences whose keys and values are read.
        """
        config, rates = self._config, self._rates
        num_ids = num_ids or config.num_rows
        in_blocks = config.num_layers * (4 * config.d_model**2 + 3 * config.d_model * config.mlp_dim)
        in_head = num_ids * config.d_model
        rate = rates["float8_tflops"] if is_float8 else rates["bfloat16_tflops"]
        attention = 4.0 * num_columns * context * config.d_model * config.num_layers
        compute_s = 2e-12 * num_columns * in_blocks / rate
        compute_s += 2e-12 * num_logits * in_head / rates["bfloat16_tflops"]
        compute_s += 1e-12 * attention / (ATTENTION_SHARE * rates["bfloat16_tflops"])
        remembered = 4.0 * batch * config.num_layers * config.d_model * context
        num_bytes = in_blocks * (1 if is_float8 else 2) + 2.0 * in_head + remembered
        return 1e3 * max(compute_s, 1e-12 * num_bytes / rates["copy_tb_s"])

    def block_ms(
        self, batch: int, block_len: int, context: int, num_ids: int | None = None, *, is_float8: bool = False
    ) -> float:
        """Milliseconds of a pass over one block of each sequence, logits at all its places."""
        number = batch * block_len
        return self.ms(number, context, number, num_ids, batch=batch, is_float8=is_float8)
