"""The pictures that codes of the embedded image tokenizer stand for, and the patches it is trained on.

Enters: sprites with opacity and the colours of plain grounds. Leaves: `Tiles` in the order of their codes, batches.
Does not know networks or the loop of training.

    tiles     quarters of large sprites, small sprites, plain colours, and k-means centres of general patches
    order     a balanced tree of principal-axis splits: similar tiles differ in late bits only
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from dynin.config import AT_LEAST_ONE, AT_LEAST_ZERO, SHARE, require_ranges
from dynin.data.emoji_world import artwork as emoji
from dynin.data.emoji_world.scene import BACKGROUNDS
from dynin.errors import CheckpointError, ConfigError
from dynin.tokenizers.small.image import SmallImageTokenizer

VISIBLE_PX = 2.0
"""A quarter of a sprite with less opacity than this, summed over pixels, counts as plain ground."""
SAME_TILE = 0.05
"""Distance of flattened patches below which they are the same tile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TileChoice:
    """What the codes are spent on, and how often a batch shows it."""

    num_plain: int = 160
    """Plain codes: the given grounds, then colours spread over the cube."""
    num_objects: int = 48
    """So many sprites, the first ones, are seen often; the others have tiles of their own too, but are seen less."""
    world_share: float = 0.45
    """Share of a batch that shows patches of those; other sprites, plain and general patches share the rest."""
    seed: int = 0

    def __post_init__(self) -> None:
        """ConfigError for counts and a share that cannot be."""
        counts = {"num_plain": AT_LEAST_ONE, "num_objects": AT_LEAST_ONE, "seed": AT_LEAST_ZERO}
        require_ranges(self, {**counts, "world_share": SHARE}, "training.choice.")


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
    is_plain: Bool[Tensor, " V"]
    is_general: Bool[Tensor, " V"]
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


def k_means(
    points: Float[Tensor, "N P"],
    count: int,
    num_rounds: int,
    generator: torch.Generator,
    first: Float[Tensor, "K P"] | None = None,
) -> Float[Tensor, "K P"]:
    """Centres of Lloyd's clustering from the given first ones; an empty cluster restarts at the worst fitted point."""
    centres = points[torch.randperm(len(points), generator=generator)[:count]].clone() if first is None else first
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


def make_tiles(artwork: Artwork, choice: TileChoice, codebook_size: int) -> Tiles:
    """Choose and order the tiles of all codes.

    Raises:
        ConfigError: If the sprites and plain colours alone need more codes than the codebook has.
    """
    generator = torch.Generator().manual_seed(choice.seed)
    patch = artwork.small.shape[-1]
    sprites, groups = _visible_patches(artwork)
    colours = spread_colours(artwork.grounds, choice.num_plain)
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
    is_world = groups < choice.num_objects
    kind = torch.arange(codebook_size)[order]
    return Tiles(
        pictures=pictures[order].contiguous(),
        is_plain=(kind >= len(sprites)) & (kind < len(sprites) + len(plain)),
        is_general=kind >= len(sprites) + len(plain),
        world=place[: len(sprites)][is_world],
        others=place[: len(sprites)][~is_world],
    )


def tiles_of(tokenizer: SmallImageTokenizer, artwork: Artwork, choice: TileChoice) -> Tiles:
    """The tiles of a trained tokenizer, kept as they are except those of general patches, which are improved in place.

    So every code of a sprite or a plain colour keeps its meaning, and so do the language models that use it.

    Raises:
        CheckpointError: If the tokenizer has no tile for a sprite's patch.
    """
    generator = torch.Generator().manual_seed(choice.seed)
    pictures, is_plain = tokenizer.tiles.detach().cpu().clone(), tokenizer.ground_weight.cpu() > 0
    sprites, groups = _visible_patches(artwork)
    exact = "donot_use_mm_for_euclid_dist"
    distance, place = torch.cdist(sprites.flatten(1), pictures.flatten(1), compute_mode=exact).min(1)
    if float(distance.max()) > SAME_TILE:
        raise CheckpointError("the tokenizer has no tile for some patches of the sprites; train a new one")
    is_general = ~is_plain
    is_general[place] = False
    general = is_general.nonzero()[:, 0]
    num_more = min(max(choice.num_plain - int(is_plain.sum()), 0), len(general))
    calm = general[pictures[general, :3].var((2, 3)).sum(1).argsort()[:num_more]]
    pictures[calm, :3] = pictures[calm, :3].mean((2, 3), keepdim=True)
    is_plain[calm], is_general[calm] = True, False
    general = is_general.nonzero()[:, 0]
    crops = general_patches(artwork, 16 * len(general) + 16, generator).flatten(1)
    crops = crops[torch.cdist(crops, pictures[is_plain, :3].flatten(1)).min(1).values > SAME_TILE]
    centres = k_means(crops, len(general), 8, generator, first=pictures[general, :3].flatten(1))
    pictures[general, :3] = centres.reshape(-1, *pictures[general, :3].shape[1:])
    is_world = groups < choice.num_objects
    return Tiles(
        pictures=pictures,
        is_plain=is_plain,
        is_general=is_general,
        world=place[is_world].unique(),
        others=place[~is_world].unique(),
    )


def _visible_patches(artwork: Artwork) -> tuple[Float[Tensor, "Q 4 p p"], Int[Tensor, " Q"]]:
    """Every patch of every sprite that is more than ground, and the number of its sprite."""
    groups = torch.cat([torch.arange(len(artwork.large)).repeat_interleave(4), torch.arange(len(artwork.small))])
    sprites = torch.cat([quarters(artwork.large), artwork.small])
    visible = sprites[:, 3].sum((1, 2)) >= VISIBLE_PX
    return sprites[visible], groups[visible]


def draw_batch(
    tiles: Tiles, artwork: Artwork, choice: TileChoice, count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "N P"], Int[Tensor, " N"]]:
    """Patches and the code each should have: sprites on any ground, plain colours, general patches."""
    num_world = int(choice.world_share * count) if len(tiles.others) else int(0.75 * count)
    num_other = min(count // 6, count - num_world) if len(tiles.others) else 0
    num_plain = count // 8
    num_general = max(count - num_world - num_other - num_plain, 0)

    def pick(codes: Tensor, num: int) -> Tensor:
        return codes[torch.randint(len(codes), (num,), generator=generator)] if num else codes[:0]

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
