"""The objects of Emoji World: their names, their plurals and their pictures.

Enters: the atlas `assets/emoji_atlas.png`, made once from the font by `tools/make_atlas.py`. Leaves: names in a fixed
order and premultiplied tiles in three sizes. Does not know: scenes, captions, fonts.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

TILE_PX = 64
"""Side of a tile in the atlas."""

ATLAS_COLUMNS = 10
"""Tiles in a row of the atlas; object number i lies at row i // 10, column i % 10."""

SIZES_PX = (64, 32, 16)
"""The sizes `tile` gives; each divides `TILE_PX`, so that averaging whole boxes is exact."""

NUM_OBJECTS = 100
"""How many objects the embedded model's world has: the first ones of `ARTWORKS`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Artwork:
    """One object: what it is called and which emoji shows it."""

    name: str
    """One or two simple English words in lower case."""
    plural: str
    """What several of it are called; sometimes equal to the name."""
    emoji: str
    """The character sequence that the font draws."""


def _artwork(row: str) -> Artwork:
    name, plural, points = (field.strip() for field in row.split("|"))
    emoji = "".join(chr(int(point, 16)) for point in points.split())
    return Artwork(name=name, plural=plural, emoji=emoji)


_TABLE = """
dog | dogs | 1F436
cat | cats | 1F431
star | stars | 2B50
red apple | red apples | 1F34E
green apple | green apples | 1F34F
red heart | red hearts | 2764 FE0F
yellow heart | yellow hearts | 1F49B
green heart | green hearts | 1F49A
blue heart | blue hearts | 1F499
red book | red books | 1F4D5
green book | green books | 1F4D7
blue book | blue books | 1F4D8
tree | trees | 1F333
pumpkin | pumpkins | 1F383
banana | bananas | 1F34C
strawberry | strawberries | 1F353
carrot | carrots | 1F955
mushroom | mushrooms | 1F344
pizza | pizzas | 1F355
burger | burgers | 1F354
donut | donuts | 1F369
cake | cakes | 1F382
rainbow | rainbows | 1F308
umbrella | umbrellas | 2602 FE0F
fish | fish | 1F41F
frog | frogs | 1F438
pig | pigs | 1F437
panda | pandas | 1F43C
penguin | penguins | 1F427
butterfly | butterflies | 1F98B
crab | crabs | 1F980
owl | owls | 1F989
turtle | turtles | 1F422
elephant | elephants | 1F418
rocket | rockets | 1F680
bus | buses | 1F68C
balloon | balloons | 1F388
crown | crowns | 1F451
diamond | diamonds | 1F48E
camera | cameras | 1F4F7
clock | clocks | 23F0
robot | robots | 1F916
house | houses | 1F3E0
guitar | guitars | 1F3B8
key | keys | 1F511
sunflower | sunflowers | 1F33B
gift | gifts | 1F381
cactus | cacti | 1F335
lion | lions | 1F981
sun | suns | 2600 FE0F
moon | moons | 1F319
watermelon | watermelons | 1F349
bee | bees | 1F41D
snail | snails | 1F40C
whale | whales | 1F433
horse | horses | 1F434
monkey | monkeys | 1F435
mouse | mice | 1F42D
sheep | sheep | 1F411
taxi | taxis | 1F695
airplane | airplanes | 2708 FE0F
sailboat | sailboats | 26F5
soccer ball | soccer balls | 26BD
basketball | basketballs | 1F3C0
drum | drums | 1F941
violin | violins | 1F3BB
trumpet | trumpets | 1F3BA
lock | locks | 1F512
bell | bells | 1F514
ring | rings | 1F48D
telephone | telephones | 260E FE0F
television | televisions | 1F4FA
candle | candles | 1F56F FE0F
hammer | hammers | 1F528
magnet | magnets | 1F9F2
chick | chicks | 1F424
alien | aliens | 1F47D
castle | castles | 1F3F0
rose | roses | 1F339
leaf | leaves | 1F341
lemon | lemons | 1F34B
peach | peaches | 1F351
pineapple | pineapples | 1F34D
tiger | tigers | 1F42F
cupcake | cupcakes | 1F9C1
lollipop | lollipops | 1F36D
cookie | cookies | 1F36A
trophy | trophies | 1F3C6
hat | hats | 1F3A9
shoe | shoes | 1F45F
shirt | shirts | 1F455
dress | dresses | 1F457
backpack | backpacks | 1F392
truck | trucks | 1F69A
tractor | tractors | 1F69C
train | trains | 1F682
helicopter | helicopters | 1F681
fox | foxes | 1F98A
volcano | volcanoes | 1F30B
dinosaur | dinosaurs | 1F995
"""

ARTWORKS: tuple[Artwork, ...] = tuple(_artwork(row) for row in _TABLE.strip().splitlines())
"""All objects in their fixed order. New ones are appended: the order is part of the data."""

NAMES: tuple[str, ...] = tuple(artwork.name for artwork in ARTWORKS)

COLOUR_FAMILIES: dict[str, tuple[str, ...]] = {
    "apple": ("red", "green"),
    "heart": ("red", "yellow", "green", "blue"),
    "book": ("red", "green", "blue"),
}
"""Objects that exist in several colours, named "<colour> <family>": what a recolouring edit exchanges."""

_BY_NAME = {artwork.name: artwork for artwork in ARTWORKS}


def plural(name: str) -> str:
    """What several objects of this name are called."""
    return _artwork_named(name).plural


def article(name: str) -> str:
    """The indefinite article before a name: "a" or "an"."""
    return "an" if name[0] in "aeiou" else "a"


def family(name: str) -> str | None:
    """The colour family that an object belongs to ("heart" of "red heart"), None if to none."""
    colour, _, noun = name.partition(" ")
    return noun if colour in COLOUR_FAMILIES.get(noun, ()) else None


def _artwork_named(name: str) -> Artwork:
    if name not in _BY_NAME:
        raise ValueError(f"object {name!r} is unknown; choose one of artwork.NAMES, such as {', '.join(NAMES[:3])}")
    return _BY_NAME[name]


@cache
def atlas() -> UInt8[np.ndarray, "Y X 4"]:
    """The atlas as straight (not premultiplied) RGBA, read once.

    Raises:
        ValueError: If the file is not the atlas of these objects.
    """
    with (files("dynin") / "assets" / "emoji_atlas.png").open("rb") as stream, Image.open(stream) as picture:
        pixels = np.array(picture.convert("RGBA"))
    num_rows = -(-len(ARTWORKS) // ATLAS_COLUMNS)
    expected = (num_rows * TILE_PX, ATLAS_COLUMNS * TILE_PX, 4)
    if pixels.shape != expected:
        raise ValueError(f"the emoji atlas is {pixels.shape}; {expected} was expected; run tools/make_atlas.py")
    pixels.flags.writeable = False
    return pixels


@cache
def tile(name: str, size_px: int) -> Float32[np.ndarray, "Y X 4"]:
    """An object's picture as premultiplied RGBA in [0, 1], averaged exactly over whole boxes of the atlas tile.

    Raises:
        ValueError: If the name or the size is unknown.
    """
    if size_px not in SIZES_PX:
        raise ValueError(f"a tile of {size_px} px was asked for; the sizes are {SIZES_PX} px")
    index = ARTWORKS.index(_artwork_named(name))
    top, left = index // ATLAS_COLUMNS * TILE_PX, index % ATLAS_COLUMNS * TILE_PX
    straight = atlas()[top : top + TILE_PX, left : left + TILE_PX].astype(np.float64) / 255
    straight[..., :3] *= straight[..., 3:]
    box = TILE_PX // size_px
    averaged = straight.reshape(size_px, box, size_px, box, 4).mean(axis=(1, 3)).astype(np.float32)
    averaged.flags.writeable = False
    return averaged
