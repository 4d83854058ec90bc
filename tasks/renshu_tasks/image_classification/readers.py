"""Reads one picture of any common kind into uint8 pixels, safely: limits come before decoding."""

from __future__ import annotations

import hashlib
import io
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from renshu.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Raw = Path | bytes | Image.Image
"""A picture before decoding: a file, the bytes of a file, or what PIL has opened."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The decoders that may run. PIL has others that start programs (EPS) or follow other files."""

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 80_000_000
Image.init()  # PIL looks for the decoders by itself only after the formats were compared
_ONE_PICTURE = ("GIF", "PNG", "TIFF", "WEBP")  # a JPEG may have previews behind it


@dataclass(frozen=True)
class Facts:
    """What is known of a picture once it was decoded; width and height as seen (after EXIF)."""

    sha256: str
    size: int
    width: int
    height: int
    grey: bool


def read_picture(
    raw: Raw,
    name: str | None = None,
    *,
    channels: int = 3,
    size: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """A picture as uint8 [channels, H, W].

    EXIF rotation is applied, transparency laid on white, 16 bits scaled to 8, palettes and CMYK
    turned to colours. With `size` = (H, W) the picture is scaled to cover it and cut around the
    centre. Raises DataError that names the picture when it cannot be read or is above a limit.
    """
    name = name or (str(raw) if isinstance(raw, Path) else "picture")
    image = _decoded(raw, name, max_pixels, size)
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and (image.height, image.width) != tuple(size):
        image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def examine(raw: Raw, name: str, known: Mapping[str, Sequence], max_pixels: int) -> Facts:
    """Decode a picture in full and say what it is; bytes whose SHA-256 is `known` are believed.

    `known` maps SHA-256 → (width, height, grey). Raises DataError as `read_picture` does.
    """
    if isinstance(raw, Image.Image):
        content = f"{raw.mode} {raw.size}".encode() + raw.tobytes()
    else:
        raw = content = _bytes(raw, name, max_pixels)
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 in known:
        width, height, grey = known[sha256]
    else:
        image = _decoded(raw, name, max_pixels, None)
        width, height, grey = image.width, image.height, image.mode == "L"
    return Facts(sha256, len(content), width, height, grey)


def _decoded(raw: Raw, name: str, max_pixels: int, size: tuple[int, int] | None) -> Image.Image:
    """The picture in mode L or RGB, upright and opaque."""
    try:
        image = raw if isinstance(raw, Image.Image) else _opened(raw, name, max_pixels)
        _check(image, name, max_pixels)
        ours = image is not raw  # a picture that was handed in is not to be changed
        if ours and size and image.format == "JPEG" and image.mode in ("L", "RGB"):
            image.draft(image.mode, (2 * max(size), 2 * max(size)))
        image.load()
        return _plain(ImageOps.exif_transpose(image), name)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(str(error), name, max_pixels) from error
    except Exception as error:  # hostile bytes raise nearly anything: OSError, struct.error, ...
        raise DataError(
            f"the picture cannot be read: {error}",
            where=name,
            allowed=f"whole {', '.join(FORMATS)} files with text blocks below 1 MB",
            mend="replace or remove it, or leave such pictures out: --data.on_bad_image skip",
        ) from error


def _bytes(raw: Path | bytes, name: str, max_pixels: int) -> bytes:
    if isinstance(raw, bytes):
        return raw
    try:
        status = raw.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device never end
            raise DataError("the picture is not a regular file", where=name)
        limit = 8 * max_pixels + 2**24
        if status.st_size > limit:
            raise DataError(
                f"the file has {status.st_size} bytes", where=name, allowed=f"up to {limit} bytes"
            )
        return raw.read_bytes()
    except OSError as error:
        raise DataError(f"the picture cannot be read: {error.strerror}", where=name) from error


def _opened(raw: Path | bytes, name: str, max_pixels: int) -> Image.Image:
    return Image.open(io.BytesIO(_bytes(raw, name, max_pixels)), formats=FORMATS)


def _check(image: Image.Image, name: str, max_pixels: int) -> None:
    """Refuse by what the header says, before any pixel is decoded."""
    if image.width * image.height > max_pixels:
        raise _too_large(f"the picture has {image.width} × {image.height} pixels", name, max_pixels)
    if image.format in _ONE_PICTURE and getattr(image, "is_animated", False):
        raise DataError(
            "the file holds several frames, and it is not clear which one is meant",
            where=name,
            allowed="1 frame",
            mend="save the frame that you mean as a file of its own",
        )


def _too_large(what: str, name: str, max_pixels: int) -> DataError:
    return DataError(
        what,
        where=name,
        allowed=f"up to {max_pixels} pixels",
        mend="scale it down, or --data.max_pixels N if you trust the file",
    )


def _plain(image: Image.Image, name: str) -> Image.Image:
    """Any mode to L or RGB: 16 bits are scaled, transparency is laid on white."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return _scaled(image)
    if image.mode in ("I", "F"):
        raise DataError(
            "the picture has 32-bit values, whose range is not known",
            where=name,
            allowed="8 or 16 bits a channel",
            mend="scale it to 8 or 16 bits",
        )
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if grey else "RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """16-bit grey to 8 bits: 65535 becomes 255, rounded to the nearest."""
    values = np.asarray(image).astype(np.uint32)
    if "transparency" in image.info:
        values[values == image.info["transparency"]] = 65535
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
