"""Every kind of picture is read to the pixels it shows; hostile files are refused before that."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from renshu.errors import DataError
from renshu_tasks.image_classification import readers
from renshu_tasks.image_classification.readers import examine, read_picture

SOURCE = Path(readers.__file__).parent


def _saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def _png(width: int, height: int, rows: bytes, *extra: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [_chunk(b"IHDR", header), *extra, _chunk(b"IDAT", rows), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_sixteen_bit_grey_is_scaled_not_clipped():
    values = np.array([[0, 257, 1000, 32768, 65535]], dtype=np.uint16)
    pixels = read_picture(_saved(Image.fromarray(values)), channels=1)
    # v × 255 / 65535 = v / 257, rounded: 1000 / 257 = 3.89, 32768 / 257 = 127.502
    assert pixels.tolist() == [[[0, 1, 4, 128, 255]]]


def test_sixteen_bit_tiff_equals_sixteen_bit_png():
    values = np.arange(0, 65536, 997, dtype=np.uint16)[None]
    png, tiff = (_saved(Image.fromarray(values), kind) for kind in ("PNG", "TIFF"))
    assert torch.equal(read_picture(png, channels=1), read_picture(tiff, channels=1))


def test_palette_becomes_its_colours():
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 10, 20, 30])
    image.putdata([0, 1, 2])
    assert read_picture(_saved(image))[:, 0].T.tolist() == [[255, 0, 0], [0, 255, 0], [10, 20, 30]]


def test_transparency_is_laid_on_white():
    rgba = np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [200, 100, 0, 128]]], dtype=np.uint8)
    pixels = read_picture(_saved(Image.fromarray(rgba)))[:, 0].T.tolist()
    assert pixels[:2] == [[200, 0, 0], [255, 255, 255]]
    blend = [round(value * 128 / 255 + 255 * 127 / 255) for value in (200, 100, 0)]
    assert np.abs(np.subtract(pixels[2], blend)).max() <= 1


def test_a_transparent_palette_entry_is_white():
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 4, 5, 6])
    image.putdata([0, 1])
    pixels = read_picture(_saved(image, transparency=0))
    assert pixels[:, 0].T.tolist() == [[255, 255, 255], [4, 5, 6]]


def test_cmyk_becomes_rgb():
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # magenta and yellow: red
    pixels = read_picture(_saved(cmyk, "JPEG", quality=100))
    assert (pixels[0] > 245).all() and (pixels[1:] < 10).all()


def test_grey_with_alpha_stays_grey():
    image = Image.fromarray(np.array([[[10, 255], [10, 0]]], dtype=np.uint8), "LA")
    data = _saved(image)
    assert examine(data, "x", {}, 10**6).grey
    assert read_picture(data, channels=1).tolist() == [[[10, 255]]]
    assert read_picture(data, channels=3)[:, 0].T.tolist() == [[10] * 3, [255] * 3]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int):
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    # what a camera held that way stores, from the table of EXIF 2.3, 4.6.4 A
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _saved(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert read_picture(data, channels=1)[0].numpy().tolist() == upright.tolist()
    facts = examine(data, "x", {}, 10**6)
    assert (facts.height, facts.width) == (2, 3)


def test_one_bit_pictures_are_black_and_white():
    image = Image.fromarray(np.array([[True, False]]))
    assert read_picture(_saved(image), channels=1).tolist() == [[[255, 0]]]


def test_colour_read_as_grey_is_luma():
    data = _saved(Image.new("RGB", (1, 1), (200, 100, 50)))
    expected = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    assert abs(read_picture(data, channels=1).item() - expected) < 1


def test_size_covers_and_cuts_the_centre():
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 255  # the middle third is all that may be left
    assert (read_picture(_saved(Image.fromarray(wide)), channels=1, size=(10, 10)) == 255).all()
    assert read_picture(_saved(Image.fromarray(wide)), size=(4, 6)).shape == (3, 4, 6)


def test_photographs_of_scikit_learn_are_read_as_scikit_learn_reads_them():
    datasets = pytest.importorskip("sklearn.datasets")
    folder = Path(datasets.__file__).parent / "images"
    for name in ("china.jpg", "flower.jpg"):
        expected = datasets.load_sample_image(name)
        assert np.array_equal(read_picture(folder / name).permute(1, 2, 0).numpy(), expected)
        small = read_picture(folder / name, size=(64, 64)).float()
        assert small.shape == (3, 64, 64)
        # the fast JPEG path may differ a little from decoding in full, never in what is seen
        whole = Image.fromarray(expected).resize((96, 64), Image.Resampling.BILINEAR)
        centre = torch.from_numpy(np.array(whole)).permute(2, 0, 1)[:, :, 16:80].float()
        assert (small - centre).abs().mean() < 4


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated_pictures_are_refused_by_name(kind: str, share: float):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    data = _saved(Image.fromarray(noise), kind)
    with pytest.raises(DataError, match=r"cannot be read(.|\n)*cut\.img"):
        read_picture(data[: int(len(data) * share)], "cut.img")


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"<svg/>", b"%!PS-Adobe-3.0 EPSF", bytes(range(7, 106))]
)
def test_what_is_no_picture_is_refused_by_name(data: bytes):
    with pytest.raises(DataError, match=r"where: +a\.png"):
        read_picture(data, "a.png")


def test_postscript_never_reaches_a_program(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: pytest.fail("a program was started"))
    eps = _saved(Image.new("RGB", (4, 4)), "EPS")
    with pytest.raises(DataError):
        read_picture(eps, "a.eps")


def test_a_huge_png_is_refused_before_decoding():
    # pains/security.md row 27: 19000 × 19000 pixels in 44 KB
    bomb = _png(19000, 19000, zlib.compress(bytes((19000 // 8 + 1) * 19000), 9))
    assert len(bomb) < 60_000
    with pytest.raises(DataError, match=r"bomb\.png(.|\n)*up to 80000000 pixels"):
        read_picture(bomb, "bomb.png")


def test_a_picture_above_the_limit_is_refused_with_its_size():
    data = _saved(Image.new("L", (30, 20)))
    with pytest.raises(DataError, match=r"30 × 20 pixels(.|\n)*x\.png(.|\n)*up to 599"):
        read_picture(data, "x.png", max_pixels=599)
    assert read_picture(data, "x.png", max_pixels=600).shape == (3, 20, 30)


def test_a_gif_of_many_frames_is_refused():
    # pains/security.md row 27
    frames = [Image.new("RGB", (8, 8), (number % 256, 0, 9)) for number in range(300)]
    with pytest.raises(DataError, match=r"many\.gif(.|\n)*1 frame"):
        read_picture(_saved(frames[0], "GIF", save_all=True, append_images=frames), "many.gif")


def test_a_gif_whose_frame_is_larger_than_its_canvas_is_measured_by_the_frame():
    # pains/security.md row 27 (CVE-2022-45198)
    data = bytearray(_saved(Image.new("P", (8, 8)), "GIF"))
    start = data.index(b"\x2c", 13 + 3 * 2)
    data[start + 5 : start + 9] = struct.pack("<HH", 20000, 20000)
    with pytest.raises(DataError, match=r"frame\.gif"):
        read_picture(bytes(data), "frame.gif")


def test_a_huge_text_chunk_is_refused():
    # pains/security.md row 27 (CVE-2014-9601)
    text = _chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(64 * 2**20), 9))
    with pytest.raises(DataError, match=r"text\.png(.|\n)*text blocks below 1 MB"):
        read_picture(_png(8, 1, zlib.compress(b"\0\0"), text), "text.png")


def test_thirty_two_bit_pictures_are_refused_instead_of_guessed():
    data = _saved(Image.fromarray(np.array([[0.0, 1e6]], np.float32)), "TIFF")
    with pytest.raises(DataError, match=r"32-bit(.|\n)*f\.tif"):
        read_picture(data, "f.tif")


@pytest.mark.timeout(5)
def test_pipes_and_devices_are_refused_without_blocking(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.png")
    for file in (tmp_path / "pipe.png", Path("/dev/zero"), tmp_path):
        with pytest.raises(DataError, match=re.escape(str(file))):
            read_picture(file)


def test_a_picture_that_is_handed_in_is_not_changed():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    image = Image.open(io.BytesIO(_saved(photo, "JPEG")))
    read_picture(image, size=(8, 8))
    assert image.size == (64, 64) and image.mode == "L"


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"No such file(.|\n)*gone\.png"):
        read_picture(tmp_path / "gone.png")


def test_no_reader_switches_the_limit_of_pil_off():
    # pains/security.md row 27
    for file in SOURCE.glob("*.py"):
        assert "MAX_IMAGE_PIXELS" not in file.read_text(), file
        assert "LOAD_TRUNCATED_IMAGES" not in file.read_text(), file
