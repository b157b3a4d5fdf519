import io
import os
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from dynin.errors import MediaError
from dynin.media import image


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def levels_of(pixels: torch.Tensor) -> list[list[list[int]]]:
    return image.to_levels(pixels).tolist()


@pytest.mark.parametrize("suffix", [".png", ".webp", ".PNG"])
def test_lossless_files_give_the_same_pixels_bit_for_bit(tmp_path, picture, suffix):
    place = tmp_path / f"a{suffix}"
    image.write(place, picture)
    assert torch.equal(image.read(place), picture)


def test_every_level_survives_the_way_to_float_and_back():
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    pixels = image.from_levels(levels)
    assert (pixels.dtype, float(pixels.min()), float(pixels.max())) == (torch.float32, -1.0, 1.0)
    assert np.array_equal(image.to_levels(pixels), levels)


def test_jpeg_keeps_a_smooth_picture_almost(tmp_path):
    pixels = torch.linspace(-1, 1, 64).expand(3, 48, 64).contiguous()
    image.write(tmp_path / "a.jpg", pixels)
    assert (image.read(tmp_path / "a.jpg") - pixels).abs().mean() < 0.02


def test_pixels_outside_the_range_are_clipped_and_not_wrapped():
    assert levels_of(torch.tensor([-3.0, 0.0, 3.0]).expand(3, 1, 3)) == [[[0] * 3, [128] * 3, [255] * 3]]


def test_pixels_that_are_not_finite_write_nothing(tmp_path):
    with pytest.raises(MediaError, match="not finite"):
        image.write(tmp_path / "a.png", torch.full((3, 2, 2), float("nan")))
    assert os.listdir(tmp_path) == []


def test_unknown_suffixes_list_the_known_ones(tmp_path, picture):
    with pytest.raises(MediaError, match=r"'\.bmp' .* \.png \.jpg \.jpeg \.webp"):
        image.write(tmp_path / "a.bmp", picture)
    with pytest.raises(MediaError, match="a GIF is written as a video"):
        image.write(tmp_path / "a.gif", picture)


def test_a_picture_of_one_pixel_is_read_and_can_be_enlarged(tmp_path):
    image.write(tmp_path / "a.png", torch.ones(3, 1, 1))
    pixels = image.read(tmp_path / "a.png")
    assert torch.equal(pixels, torch.ones(3, 1, 1))
    assert torch.equal(image.fit_square(pixels, 64), torch.ones(3, 64, 64))


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (8193, 1), (0, 5), (8192, 8192)])
def test_a_picture_over_the_limits_is_refused_from_its_header(width, height):
    start = time.perf_counter()
    with pytest.raises(MediaError, match=f"a.png: {width} x {height} pixels, expected sides of 1 to 8192"):
        image.decode(png_header(width, height), "a.png")
    assert time.perf_counter() - start < 1


def test_a_bomb_of_one_bit_pixels_is_refused():
    bomb = encoded(Image.new("1", (12_000, 12_000)), "PNG")
    with pytest.raises(MediaError, match="12000 x 12000 pixels"):
        image.decode(bomb)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WebP", "GIF"])
def test_the_size_in_the_header_is_found_in_every_format(kind):
    data = encoded(Image.new("RGB", (8200, 2)), kind)
    with pytest.raises(MediaError, match="8200 x 2 pixels"):
        image.decode(data)


def test_the_size_of_a_lossless_and_of_a_moving_webp_is_found():
    for options in ({"lossless": True}, {"save_all": True, "append_images": [Image.new("RGB", (8200, 2), "red")]}):
        with pytest.raises(MediaError, match="8200 x 2 pixels"):
            image.decode(encoded(Image.new("RGB", (8200, 2)), "WebP", **options))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WebP"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.7])
def test_a_truncated_picture_is_refused_in_our_words(picture, kind, part):
    data = encoded(image.to_pil(picture), kind)
    with pytest.raises(MediaError, match=f"^a.file: (damaged|is in no known format).*expected a.*{kind}.*; ") as caught:
        image.decode(data[: int(len(data) * part)], "a.file")
    assert str(caught.value).count("\n") == 0


def test_text_named_png_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("hello, I am no picture at all")
    with pytest.raises(MediaError, match=r"a\.png: is in no known format, expected a picture as PNG, JPEG, WebP, GIF"):
        image.read(tmp_path / "a.png")


def test_a_sound_given_as_a_picture_is_named_as_what_it_is():
    with pytest.raises(MediaError, match="is WAV, expected a picture"):
        image.decode(b"RIFF\0\0\0\0WAVEfmt ")


def test_the_content_decides_and_not_the_suffix(tmp_path, picture):
    image.write(tmp_path / "a.png", picture)
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert torch.equal(image.read(tmp_path / "a.jpg"), picture)


def test_the_exif_orientation_is_applied():
    stored = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise to stand upright
    pixels = image.decode(encoded(stored, "PNG", exif=exif))
    assert pixels.shape == (3, 3, 2)
    assert image.to_levels(pixels)[..., 0].tolist() == np.rot90(np.asarray(stored), -1).tolist()


def test_transparency_is_laid_over_white():
    picture = Image.fromarray(np.array([[[0, 0, 0, 0], [0, 0, 255, 255], [0, 0, 0, 51]]], dtype=np.uint8))
    assert levels_of(image.decode(encoded(picture, "PNG"))) == [[[255] * 3, [0, 0, 255], [204] * 3]]


@pytest.mark.parametrize("transparent", [True, False])
def test_a_palette_becomes_colours_over_white(transparent):
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.putpixel((1, 0), 1)
    options = {"transparency": 0} if transparent else {}
    first = [255, 255, 255] if transparent else [255, 0, 0]
    assert levels_of(image.decode(encoded(picture, "PNG", **options))) == [[first, [0, 255, 0]]]


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    grey = np.arange(256, dtype=np.uint16)[None] * 257
    pixels = image.decode(encoded(Image.fromarray(grey), "PNG"))
    assert image.to_levels(pixels)[..., 0].tolist() == [list(range(256))]


def test_cmyk_becomes_rgb():
    pixels = image.decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100))
    assert (pixels - torch.tensor([1.0, -1.0, -1.0])[:, None, None]).abs().max() < 0.05


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGBA"])
def test_other_modes_become_three_channels(mode):
    assert torch.equal(image.decode(encoded(Image.new(mode, (2, 2), "white"), "PNG")), torch.ones(3, 2, 2))


def test_the_first_picture_of_a_gif_is_read():
    data = encoded(Image.new("RGB", (4, 4), "red"), "GIF", save_all=True, append_images=[Image.new("RGB", (4, 4))])
    assert levels_of(image.decode(data))[0][0] == [255, 0, 0]


def test_a_square_is_cut_from_the_centre_after_resizing_the_shorter_side():
    pixels = torch.ones(3, 32, 128)
    pixels[:, :, :48] = -1
    pixels[:, :, 80:] = -1
    square = image.fit_square(pixels, 16)
    assert square.shape == (3, 16, 16)
    assert torch.equal(square[:, :, 2:14], torch.ones(3, 16, 12))


def test_a_square_of_the_right_size_is_left_alone():
    pixels = torch.arange(3 * 16 * 16).reshape(3, 16, 16) % 256 / 127.5 - 1
    assert torch.equal(image.fit_square(pixels, 16), pixels)


def test_the_truncation_and_rounding_of_the_usual_resize_are_kept():
    pixels = torch.rand(3, 37, 50, generator=torch.Generator().manual_seed(3)) * 2 - 1
    wide = image.to_pil(pixels).resize((int(16 * 50 / 37), 16), Image.Resampling.BICUBIC)  # 21 wide, cut at round(2.5)
    assert torch.equal(image.fit_square(pixels, 16), image.from_pil(wide.crop((2, 0, 18, 16))))


def test_a_picture_far_too_narrow_for_a_square_is_refused():
    with pytest.raises(MediaError, match="at most 32 times the other"):
        image.fit_square(torch.zeros(3, 1, 33), 64)


def test_pasting_changes_the_box_blends_the_margin_and_nothing_else():
    original, replacement = torch.full((3, 12, 12), -0.3), torch.full((3, 12, 12), 0.6)
    result = image.paste(original, replacement, (4, 5, 3, 2), 2)
    assert torch.equal(result[:, 5:7, 4:7], replacement[:, 5:7, 4:7])
    outside = torch.ones(12, 12, dtype=torch.bool)
    outside[3:9, 2:9] = False
    assert torch.equal(result[:, outside], original[:, outside])
    assert torch.allclose(result[0, 5, 2:4], torch.tensor([0.0, 0.3]), atol=1e-6)
    assert torch.allclose(result[0, 7:9, 5], torch.tensor([0.3, 0.0]), atol=1e-6)


def test_pasting_without_a_margin_is_a_hard_cut():
    result = image.paste(torch.zeros(3, 4, 4), torch.ones(3, 4, 4), (1, 1, 2, 2), 0)
    assert result[0].tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("box", [(-1, 0, 2, 2), (0, 0, 5, 2), (0, 3, 2, 2), (1, 1, 0, 2)])
def test_a_box_outside_the_picture_is_refused(box):
    with pytest.raises(MediaError, match="expected a part of the 4 x 4 pixel picture"):
        image.paste(torch.zeros(3, 4, 4), torch.ones(3, 4, 4), box, 1)


def test_pasting_needs_equal_sizes():
    with pytest.raises(MediaError, match="resize it first"):
        image.paste(torch.zeros(3, 4, 4), torch.ones(3, 4, 5), (0, 0, 1, 1), 0)
