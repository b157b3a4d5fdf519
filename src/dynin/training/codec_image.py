"""Trains the embedded image tokenizer on the artwork: first the tiles and their order, then the patch encoder.

Enters: sprites with opacity and the colours of plain grounds. Leaves: a trained `SmallImageTokenizer`.
Does not know scenes, captions or the language model.

    tiles     quarters of large sprites, small sprites, plain colours, and k-means centres of general patches
    order     a balanced tree of principal-axis splits: similar tiles differ in late bits only
    encoder   learns to say the bits of the tile that a patch shows, whatever the ground behind it
"""

import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from dynin.data.emoji_world import artwork as emoji
from dynin.data.emoji_world.scene import BACKGROUNDS
from dynin.errors import CheckpointError, ConfigError
from dynin.tokenizers.small.image import SmallImageConfig, SmallImageTokenizer

STATE_NAME = "training-state.pt"
VISIBLE_PX = 2.0
"""A quarter of a sprite with less opacity than this, summed over pixels, counts as plain ground."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageCodecTraining:
    """How the embedded image tokenizer is trained."""

    num_steps: int = 10000
    batch_patches: int = 768
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    num_plain: int = 160
    """Plain codes: the given grounds, then colours spread over the cube."""
    world_share: float = 0.45
    """Share of a batch that shows the first `num_objects` sprites on grid; the rest is other sprites, plain, general."""
    num_objects: int = 48
    save_every: int = 500
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Artwork:
    """What the tokenizer must be able to show."""

    large: Float[Tensor, "A 4 Y X"]
    """Sprites two patches wide: red, green, blue in [-1, 1], opacity in [0, 1]."""
    small: Float[Tensor, "A 4 p p"]
    """The same sprites one patch wide."""
    grounds: Float[Tensor, "G 3"]
    """Colours of plain backgrounds in [-1, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiles:
    """The pictures of all codes, and which code every sprite's patch has."""

    pictures: Float[Tensor, "V 4 p p"]
    is_plain: Tensor
    is_general: Tensor
    world: Int[Tensor, " W"]
    """Codes of the patches of the first `num_objects` sprites."""
    others: Int[Tensor, " R"]


def emoji_artwork(names: tuple[str, ...] = emoji.NAMES) -> Artwork:
    """The sprites of Emoji World in both sizes, and its backgrounds."""

    def straight(name: str, size_px: int) -> Tensor:
        premultiplied = torch.tensor(emoji.tile(name, size_px)).permute(2, 0, 1)
        opacity = premultiplied[3:]
        colour = torch.where(opacity > 0, premultiplied[:3] / opacity.clamp(min=1e-6), 0.5).clamp(0, 1)
        return torch.cat([2 * colour - 1, opacity])

    return Artwork(
        large=torch.stack([straight(name, 32) for name in names]),
        small=torch.stack([straight(name, 16) for name in names]),
        grounds=torch.tensor(list(BACKGROUNDS.values())) / 127.5 - 1,
    )


def quarters(large: Float[Tensor, "A 4 Y X"]) -> Float[Tensor, "Q 4 p p"]:
    """Cut sprites of 2 x 2 patches into their patches, in raster order."""
    side = large.shape[-1] // 2
    return large.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 1, 4, 5).reshape(-1, 4, side, side)


def over(tiles: Float[Tensor, "N 4 Y X"], ground: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3 Y X"]:
    """Tiles in front of plain grounds."""
    return tiles[:, 3:] * tiles[:, :3] + (1 - tiles[:, 3:]) * ground[:, :, None, None]


def spread_colours(first: Float[Tensor, "G 3"], count: int) -> Float[Tensor, "N 3"]:
    """The given colours, then colours of a regular grid of the cube, each as far as possible from those before."""
    steps = torch.linspace(-1, 1, 9)
    cube = torch.cartesian_prod(steps, steps, steps)
    chosen = first
    while len(chosen) < count:
        distance = torch.cdist(cube, chosen).min(1).values
        chosen = torch.cat([chosen, cube[distance.argmax()][None]])
    return chosen[:count]


def general_patches(artwork: Artwork, count: int, generator: torch.Generator) -> Float[Tensor, "N 3 p p"]:
    """Patches off the grid: turned, scaled, recoloured crops of sprites on any ground, edges and gradients."""
    patch = artwork.small.shape[-1]
    sprites = artwork.large[torch.randint(len(artwork.large), (count,), generator=generator)]
    scale = 0.5 + 1.5 * torch.rand(count, generator=generator)
    angle = (torch.rand(count, generator=generator) - 0.5) * math.pi
    shift = (torch.rand(count, 2, generator=generator) - 0.5) * 1.6
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).reshape(-1, 2, 2)
    theta = torch.cat([turn / scale[:, None, None] * 0.5, shift[..., None]], -1)
    grid = functional.affine_grid(theta, [count, 4, patch, patch], align_corners=False)
    crops = functional.grid_sample(sprites, grid, align_corners=False, padding_mode="zeros")
    ramp = torch.linspace(-0.5, 0.5, patch)
    slope = torch.randn(count, 3, 2, generator=generator) * 0.2
    slope = slope * (torch.rand(count, 1, 1, generator=generator) < 0.5)
    ground = (0.6 * torch.randn(count, 3, generator=generator)).clamp(-1, 1)
    shade = slope[..., 0, None, None] * ramp[:, None] + slope[..., 1, None, None] * ramp
    behind = ground[..., None, None] + shade
    return (crops[:, 3:] * crops[:, :3] + (1 - crops[:, 3:]) * behind).clamp(-1, 1)


def k_means(points: Float[Tensor, "N P"], count: int, num_rounds: int, generator: torch.Generator) -> Tensor:
    """Centres of Lloyd's clustering; an empty cluster restarts at the point that fits worst."""
    centres = points[torch.randperm(len(points), generator=generator)[:count]].clone()
    for _ in range(num_rounds):
        distance, nearest = torch.cdist(points, centres).min(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        members = torch.bincount(nearest, minlength=count)
        centres = sums / members.clamp(min=1)[:, None]
        empty = (members == 0).nonzero()[:, 0]
        centres[empty] = points[distance.topk(max(len(empty), 1)).indices[: len(empty)]]
    return centres


def tree_order(points: Float[Tensor, "N P"]) -> Int[Tensor, " N"]:
    """An order of the points in which every half, quarter, eighth ... is one side of a principal-axis split."""
    if len(points) < 2:
        return torch.arange(len(points))
    centred = points - points.mean(0)
    axis = torch.ones(len(points), dtype=points.dtype) @ centred + centred[0]
    for _ in range(20):
        axis = functional.normalize(centred.T @ (centred @ axis), dim=0)
    along = (centred @ axis).argsort()
    halves = along[: len(points) // 2], along[len(points) // 2 :]
    return torch.cat([half[tree_order(points[half])] for half in halves])


def make_tiles(artwork: Artwork, config: ImageCodecTraining, codebook_size: int) -> Tiles:
    """Choose and order the tiles of all codes.

    Raises:
        ConfigError: If the sprites and plain colours alone need more codes than the codebook has.
    """
    generator = torch.Generator().manual_seed(config.seed)
    patch = artwork.small.shape[-1]
    groups = torch.cat([torch.arange(len(artwork.large)).repeat_interleave(4), torch.arange(len(artwork.small))])
    sprites = torch.cat([quarters(artwork.large), artwork.small])
    visible = sprites[:, 3].sum((1, 2)) >= VISIBLE_PX
    sprites, groups = sprites[visible], groups[visible]
    colours = spread_colours(artwork.grounds, config.num_plain)
    plain = torch.cat([colours, torch.ones(len(colours), 1)], 1)[:, :, None, None].expand(-1, -1, patch, patch)
    num_general = codebook_size - len(sprites) - len(plain)
    if num_general < 0:
        raise ConfigError(
            f"{len(sprites)} sprite patches and {len(plain)} plain colours need more than {codebook_size} codes; "
            "raise num_bits or pass fewer sprites"
        )
    crops = general_patches(artwork, 16 * num_general + 16, generator).flatten(1)
    centres = k_means(crops, num_general, 12, generator).reshape(-1, 3, patch, patch)
    general = torch.cat([centres, torch.ones(num_general, 1, patch, patch)], 1)
    pictures = torch.cat([sprites, plain, general])
    order = tree_order(over(pictures, torch.zeros(len(pictures), 3)).flatten(1))
    place = order.argsort()
    is_world = groups < config.num_objects
    kind = torch.arange(codebook_size)[order]
    return Tiles(
        pictures=pictures[order].contiguous(),
        is_plain=(kind >= len(sprites)) & (kind < len(sprites) + len(plain)),
        is_general=kind >= len(sprites) + len(plain),
        world=place[: len(sprites)][is_world],
        others=place[: len(sprites)][~is_world],
    )


def draw_batch(
    tiles: Tiles, artwork: Artwork, config: ImageCodecTraining, generator: torch.Generator
) -> tuple[Float[Tensor, "N P"], Int[Tensor, " N"]]:
    """Patches and the code each should have: sprites on any ground, plain colours, general patches."""
    total = config.batch_patches
    num_world = int(config.world_share * total) if len(tiles.others) else int(0.75 * total)
    num_other = min(total // 6, total - num_world) if len(tiles.others) else 0
    num_plain = total // 8
    num_general = max(total - num_world - num_other - num_plain, 0)

    def pick(codes: Tensor, count: int) -> Tensor:
        return codes[torch.randint(len(codes), (count,), generator=generator)] if count else codes[:0]

    shown = torch.cat([pick(tiles.world, num_world), pick(tiles.others, num_other)])
    known = artwork.grounds[torch.randint(len(artwork.grounds), (len(shown),), generator=generator)]
    free = torch.rand(len(shown), 3, generator=generator) * 2 - 1
    is_known = torch.rand(len(shown), 1, generator=generator) < 0.7
    front = over(tiles.pictures[shown], torch.where(is_known, known, free))

    plain_codes = tiles.is_plain.nonzero()[:, 0]
    plain_colours = tiles.pictures[plain_codes, :3, 0, 0]
    wanted = torch.rand(num_plain, 3, generator=generator) * 2 - 1
    wanted[: num_plain // 2] = artwork.grounds[
        torch.randint(len(artwork.grounds), (num_plain // 2,), generator=generator)
    ]
    flat = wanted[:, :, None, None].expand(-1, -1, *front.shape[2:])
    flat_codes = plain_codes[torch.cdist(wanted, plain_colours).argmin(1)]

    crops = general_patches(artwork, num_general, generator)
    opaque = (tiles.is_plain | tiles.is_general).nonzero()[:, 0]
    distance = torch.cdist(crops.flatten(1), tiles.pictures[opaque, :3].flatten(1))
    pictures = torch.cat([front, flat, crops])
    blurred = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    blur = (torch.rand(len(pictures), 1, 1, 1, generator=generator) - 0.5).clamp(min=0)
    patches = (pictures + blur * (blurred - pictures)).flatten(1)
    codes = torch.cat([shown, flat_codes, opaque[distance.argmin(1)]])
    strength = 0.08 * torch.rand(len(patches), 1, generator=generator)
    noise = torch.randn(patches.shape, generator=generator) * strength
    return (patches + noise).clamp(-1, 1), codes


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
    device: str = "cpu",
) -> SmallImageTokenizer:
    """Train, saving into `folder`; continues from the state found there.

    Batches are drawn on the CPU by a seeded generator whose state is saved, so a continued run equals an
    uninterrupted one on the same machine.

    Raises:
        CheckpointError: If the folder holds the state of a training with other settings.
    """
    sizes, config = sizes or SmallImageConfig(), config or ImageCodecTraining()
    tokenizer = SmallImageTokenizer(sizes)
    tiles = make_tiles(artwork, config, tokenizer.codebook_size)
    tokenizer.tiles.data.copy_(tiles.pictures)
    tokenizer.ground_weight.copy_(tiles.is_plain.float())
    generator = torch.Generator().manual_seed(config.seed + 1)
    _initialise(tokenizer, generator)
    tokenizer.to(device)
    optimizer = torch.optim.AdamW(tokenizer.encoder.parameters(), lr=config.learning_rate, weight_decay=0.01)
    first = _restore(folder / STATE_NAME, tokenizer, optimizer, generator, config)
    for step in range(first, config.num_steps):
        warm = min(1.0, (step + 1) / config.warmup_steps)
        decay = 0.5 * (1 + math.cos(math.pi * step / config.num_steps))
        optimizer.param_groups[0]["lr"] = config.learning_rate * warm * max(decay, 0.01)
        patches, codes = (value.to(device) for value in draw_batch(tiles, artwork, config, generator))
        logits = tokenizer.encoder(patches)
        loss = functional.binary_cross_entropy_with_logits(logits, bits_of(codes, sizes.num_bits))
        if not math.isfinite(loss.item()):
            raise CheckpointError(f"loss of the image tokenizer became {loss.item()} at step {step}; lower learning_rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tokenizer.encoder.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % config.save_every == 0 or step + 1 == config.num_steps:
            with torch.no_grad():
                got = (logits > 0).float() == bits_of(codes, sizes.num_bits)
            logger.info("step %d loss %.5f codes right %.4f", step + 1, loss.item(), got.all(-1).float().mean().item())
            tokenizer.save(folder)
            _store(folder / STATE_NAME, tokenizer, optimizer, generator, config, step + 1)
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
    part = path.with_suffix(".part")
    state = {
        "model": tokenizer.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generator": generator.get_state(),
        "config": asdict(config),
        "step": step,
    }
    torch.save(state, part)
    part.replace(path)


def _restore(
    path: Path,
    tokenizer: SmallImageTokenizer,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    config: ImageCodecTraining,
) -> int:
    """Take up the saved state, if there is one; the step to continue at."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["config"] != asdict(config):
        raise CheckpointError(f"{path} belongs to a training with other settings; use its settings or another folder")
    tokenizer.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    generator.set_state(state["generator"])
    return int(state["step"])
