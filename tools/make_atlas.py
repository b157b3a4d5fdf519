"""Draw the objects of Emoji World from the Noto Color Emoji font into one atlas.

Enters: the path of NotoColorEmoji.ttf (Debian package fonts-noto-color-emoji). Leaves: `emoji_atlas.png` and
`emoji_atlas.json` in `src/dynin/assets`. Run once whenever the list of objects changes:

    python tools/make_atlas.py /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf
"""

import hashlib
import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dynin.data.emoji_world.artwork import ARTWORKS, ATLAS_COLUMNS, TILE_PX

FONT_SIZE = 109
"""The only size at which the bitmap font can be drawn."""

ART_PX = 60
"""Longer side of the drawn part within a tile of 64 px."""

FAINTEST_ALPHA = 16
"""Alpha below which a pixel counts as margin."""

ASSETS = Path(__file__).resolve().parents[1] / "src" / "dynin" / "assets"


def draw_tile(font: ImageFont.FreeTypeFont, name: str, emoji: str) -> Image.Image:
    """One object, cropped to its drawn part, scaled to `ART_PX` and centred on a transparent tile."""
    if font.getlength(emoji) > 140:
        raise ValueError(f"the font draws {name!r} as several pictures; give it another emoji")
    canvas = Image.new("RGBA", (136, 128), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((0, 0), emoji, font=font, embedded_color=True)
    box = canvas.getchannel("A").point([255 if alpha >= FAINTEST_ALPHA else 0 for alpha in range(256)]).getbbox()
    if box is None:
        raise ValueError(f"the font has no picture of {name!r}; give it another emoji")
    art = canvas.crop(box)
    scale = ART_PX / max(art.size)
    art = art.resize((round(art.width * scale), round(art.height * scale)), Image.Resampling.LANCZOS)
    tile = Image.new("RGBA", (TILE_PX, TILE_PX), (0, 0, 0, 0))
    tile.paste(art, ((TILE_PX - art.width) // 2, (TILE_PX - art.height) // 2))
    return tile


def main(font_path: Path) -> None:
    """Write the atlas and its manifest."""
    font = ImageFont.truetype(str(font_path), FONT_SIZE)
    num_rows = -(-len(ARTWORKS) // ATLAS_COLUMNS)
    atlas = Image.new("RGBA", (ATLAS_COLUMNS * TILE_PX, num_rows * TILE_PX), (0, 0, 0, 0))
    for index, artwork in enumerate(ARTWORKS):
        place = (index % ATLAS_COLUMNS * TILE_PX, index // ATLAS_COLUMNS * TILE_PX)
        atlas.paste(draw_tile(font, artwork.name, artwork.emoji), place)
    picture_path = ASSETS / "emoji_atlas.png"
    atlas.save(picture_path, optimize=True)
    manifest = {
        "font": "Noto Color Emoji (googlefonts/noto-emoji), SIL Open Font License 1.1",
        "font_sha256": hashlib.sha256(font_path.read_bytes()).hexdigest(),
        "file_sha256": hashlib.sha256(picture_path.read_bytes()).hexdigest(),
        "pixels_sha256": hashlib.sha256(atlas.tobytes()).hexdigest(),
        "tile_px": TILE_PX,
        "columns": ATLAS_COLUMNS,
        "objects": [artwork.name for artwork in ARTWORKS],
    }
    (ASSETS / "emoji_atlas.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give the path of NotoColorEmoji.ttf, for example /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
    main(Path(sys.argv[1]))
