"""Trains the embedded image tokenizer: the patch encoder learns to say the bits of the tile that a patch shows.

Enters: artwork. Leaves: a trained `SmallImageTokenizer` in a folder. Does not know what tiles show (codec_tiles.py),
scenes, captions or the language model.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from dynin.config import AT_LEAST_ONE, AT_LEAST_ZERO, require_ranges
from dynin.errors import CheckpointError
from dynin.tokenizers.small.image import SmallImageConfig, SmallImageTokenizer
from dynin.training import state
from dynin.training.codec_tiles import Artwork, TileChoice, draw_batch, make_tiles, tiles_of

STATE_NAME = "state"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageCodecTraining:
    """How the embedded image tokenizer is trained."""

    choice: TileChoice = TileChoice()
    num_steps: int = 10000
    batch_patches: int = 768
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    save_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        """ConfigError for numbers that no training can have."""
        counted = ("num_steps", "batch_patches", "warmup_steps", "save_every")
        require_ranges(self, dict.fromkeys(counted, AT_LEAST_ONE), "training.")
        require_ranges(self, dict.fromkeys(("learning_rate", "seed"), AT_LEAST_ZERO), "training.")


def bits_of(codes: Int[Tensor, "*N"], num_bits: int) -> Float[Tensor, "*N K"]:
    """Codes to 0 and 1, the most significant bit first."""
    shifts = torch.arange(num_bits - 1, -1, -1, device=codes.device)
    return ((codes[..., None] >> shifts) & 1).float()


def train_image_codec(
    artwork: Artwork,
    folder: Path,
    *,
    sizes: SmallImageConfig | None = None,
    config: ImageCodecTraining | None = None,
    start: SmallImageTokenizer | None = None,
    device: str = "cpu",
    report: Callable[[int, dict[str, float]], None] = lambda step, figures: None,
) -> SmallImageTokenizer:
    """Train, saving into `folder`; continues from the state found there.

    With `start`, training goes on from the weights of that tokenizer, with a new warm-up, and codes keep their meaning.
    Batches are drawn on the CPU by a seeded generator whose state is saved, so a continued run equals an
    uninterrupted one on the same machine.

    Args:
        report: Called at every save with the step, the loss and the share of codes that are right.

    Raises:
        CheckpointError: If the folder holds the state of a training with other settings.
    """
    sizes, config = sizes or SmallImageConfig(), config or ImageCodecTraining()
    tokenizer = SmallImageTokenizer(start.config if start else sizes)
    generator = torch.Generator().manual_seed(config.seed + 1)
    if start is None:
        tiles = make_tiles(artwork, config.choice, tokenizer.codebook_size)
        _initialise(tokenizer, generator)
    else:
        tiles = tiles_of(start, artwork, config.choice)
        tokenizer.load_state_dict(start.state_dict())
    tokenizer.tiles.data.copy_(tiles.pictures)
    tokenizer.ground_weight.copy_(tiles.is_plain.float())
    tokenizer.to(device)
    optimizer = torch.optim.AdamW(tokenizer.encoder.parameters(), lr=config.learning_rate, weight_decay=0.01)
    first = _restore(folder / STATE_NAME, tokenizer, optimizer, generator, config)
    for step in range(first, config.num_steps):
        warm = min(1.0, (step + 1) / config.warmup_steps)
        decay = 0.5 * (1 + math.cos(math.pi * step / config.num_steps))
        optimizer.param_groups[0]["lr"] = config.learning_rate * warm * max(decay, 0.01)
        batch = draw_batch(tiles, artwork, config.choice, config.batch_patches, generator)
        patches, codes = (value.to(device) for value in batch)
        logits = tokenizer.encoder(patches)
        loss = functional.binary_cross_entropy_with_logits(logits, bits_of(codes, tokenizer.config.num_bits))
        if not math.isfinite(loss.item()):
            raise CheckpointError(
                f"loss of the image tokenizer became {loss.item()} at step {step}; lower learning_rate"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tokenizer.encoder.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % config.save_every == 0 or step + 1 == config.num_steps:
            with torch.no_grad():
                got = (logits > 0).float() == bits_of(codes, tokenizer.config.num_bits)
            tokenizer.save(folder)
            _store(folder / STATE_NAME, tokenizer, optimizer, generator, config, step + 1)
            report(step + 1, {"loss": loss.item(), "right": got.all(-1).float().mean().item()})
    return tokenizer.eval().requires_grad_(False)


def _initialise(tokenizer: SmallImageTokenizer, generator: torch.Generator) -> None:
    """Normal weights with standard deviation 1 / sqrt(inputs), zero biases."""
    for layer in (tokenizer.encoder.inner, tokenizer.encoder.middle, tokenizer.encoder.outer):
        torch.nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
        torch.nn.init.zeros_(layer.bias)


def _store(
    path: Path,
    tokenizer: SmallImageTokenizer,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    config: ImageCodecTraining,
    step: int,
) -> None:
    """Write everything that a continued run needs, whole or not at all."""
    drawn = generator.get_state().numpy().tobytes().hex()
    state.save(path, step, tokenizer, None, [optimizer], {"config": asdict(config), "generator": drawn})


def _restore(
    path: Path,
    tokenizer: SmallImageTokenizer,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    config: ImageCodecTraining,
) -> int:
    """Take up the saved state, if there is one; the step to continue at."""
    notes = state.read_notes(path)
    if not notes:
        return 0
    if notes["config"] != asdict(config):
        raise CheckpointError(f"{path} belongs to a training with other settings; use its settings or another folder")
    step = state.load(path, tokenizer, None, [optimizer])
    generator.set_state(torch.tensor(list(bytes.fromhex(notes["generator"])), dtype=torch.uint8))
    return step
