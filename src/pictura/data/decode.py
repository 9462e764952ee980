"""Bytes from strangers, made into pictures and captions, or refused by name and reason.

Pictures: only raster formats whose decoders are safe to point at the web are tried, sizes are bounded from the header
before a pixel is decoded, and everything comes out as upright RGB. Captions: any length, nearly any encoding.
"""

import functools
import io
import re
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from pictura.data.source import MAX_BYTES, BadSample

MAX_PIXELS = 178_956_970  # where Pillow itself refuses; 512 MiB as RGB
MAX_ELONGATION = 100  # longer side over shorter: resizing a 100,000 x 1 picture to 224 high would take 15 GB
MAX_CAPTION = 64 * 1024  # characters kept; no tokenizer reads further
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")  # the readers of EPS, PDF, PSD, … are riskier

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112  # the EXIF tag
_SURROGATES = re.compile("[\ud800-\udfff]")


def decode(
    image: bytes | npt.NDArray[np.uint8], *, at_least: int | None = None, key: str = "", max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """An encoded file, or pixels uint8 RGB [y x c] → an upright RGB picture.

    `at_least`: a JPEG is down-scaled while decoding (by 2, 4 or 8) so long as its shorter side stays at least this
    many pixels. 16-bit and float pictures are scaled to 8 bits, transparency is laid on white, of an animation the
    first frame is taken. Raises `BadSample` naming `key`. `max_pixels` may be lowered; Pillow's own limit, the
    default, holds above it.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise BadSample(key, f"pixels must be uint8 [y x 3], not {image.dtype} {list(image.shape)}")
        return Image.fromarray(np.ascontiguousarray(image))
    if not image:
        raise BadSample(key, "empty file")
    if len(image) > MAX_BYTES:
        raise BadSample(key, f"{len(image):,} bytes, above the limit of {MAX_BYTES:,}")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # size is checked here, palettes and metadata harm nobody
            with Image.open(io.BytesIO(image), formats=_formats()) as opened:
                _check_size(opened.size, max_pixels, key)
                if at_least is not None:
                    opened.draft(None, (at_least, at_least))
                opened.load()
                turn = _turn(opened)
                upright = _to_rgb(opened, key)
                return upright if turn is None else upright.transpose(turn)
    except BadSample:
        raise
    except Image.DecompressionBombError:
        raise BadSample(key, f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # decoders meet hostile bytes with every type of error there is; each is one bad picture
        raise BadSample(key, _reason(image, error)) from error


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _check_size(size: tuple[int, int], max_pixels: int, key: str) -> None:
    width, height = size
    if width * height > max_pixels:
        raise BadSample(key, f"{width:,} x {height:,} pixels, more than {max_pixels:,}")
    if max(size) > MAX_ELONGATION * min(size):
        raise BadSample(key, f"{width:,} x {height:,} pixels, too long and thin")


def _to_rgb(image: Image.Image, key: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_8_bits(np.asarray(image), key)).convert("RGB")
    if image.has_transparency_data:
        drawn = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(pixels: npt.NDArray[Any], key: str) -> npt.NDArray[np.uint8]:
    """Deep grey [y x] → uint8 [y x]. Integers to 65,535 and floats to 1 or 255 are taken at their full scale, so that
    a dark picture stays dark; anything else has no scale that we know, and is stretched from its least to its
    greatest value."""
    whole = np.issubdtype(pixels.dtype, np.integer)
    values: npt.NDArray[np.float64] = pixels.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        raise BadSample(key, "no pixel holds a number")
    values[~finite] = 0
    low, high = float(values.min()), float(values.max())
    if whole and low >= 0 and high <= 65535:
        values = values / 257
    elif not whole and low >= 0 and high <= 1:
        values = values * 255
    elif whole or low < 0 or high > 255:
        values = (values - low) * (255 / (high - low or 1))
    return np.rint(values).astype(np.uint8)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What the camera says must be done to stand the loaded picture upright. (Pillow itself has turned a TIFF.)"""
    try:
        orientation = image.getexif().get(_ORIENTATION) if image.info.get("exif") else None
    except Exception:  # noqa: BLE001  (damaged EXIF; the picture itself is whole)
        return None
    return _TURNS.get(orientation) if isinstance(orientation, int) else None


_SIGNATURES = (
    (b"<!doctype html", "a web page (HTML)"),
    (b"<html", "a web page (HTML)"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML or SVG document"),
    (b"version https://git-lfs", "a Git LFS pointer (run `git lfs pull`)"),
    (b"%pdf", "a PDF document"),
    (b"%!ps", "a PostScript document"),
    (b"8bps", "a Photoshop document"),
    (b"pk\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"{", "JSON text"),
)  # fmt: skip


def _reason(data: bytes, error: Exception) -> str:
    """What a person would say is wrong with it."""
    said = str(error).strip() or type(error).__name__
    if not isinstance(error, UnidentifiedImageError):
        cut = "truncated" in said or "Truncated" in said or isinstance(error, EOFError)
        return f"cut short or damaged: {said}" if cut else f"damaged picture: {said}"
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signature, what in _SIGNATURES:
        if head.startswith(signature):
            return f"{what}, not a picture"
    if data[4:8] == b"ftyp":
        return "HEIC or a video, not a format that is read here; convert it to JPEG"
    if not any(data[:4096]):
        return "zero bytes, not a picture"
    return f"not a picture, or damaged at its beginning (formats read: {', '.join(FORMATS)})"


def clean_caption(text: str | bytes, key: str) -> str:
    """One caption as text without white space around it, at most `MAX_CAPTION` characters (longer ones are cut).

    Bytes are read as UTF-8 (UTF-16 if they begin with its mark). Up to one character in ten may be unreadable (not
    UTF-8, or a control character): it is replaced. Beyond that the caption is in an encoding that we do not know:
    `BadSample`, as when empty.
    """
    if isinstance(text, str) and text.isascii() and text.isprintable():  # nearly always
        text = text[:MAX_CAPTION].strip()
        if text:
            return text
        raise BadSample(key, "empty caption")
    text = _decode_text(text)[:MAX_CAPTION]
    unreadable = 0
    if not text.isprintable():
        control = [c for c in text if (ord(c) < 32 and c not in "\t\n\r\x0b\x0c") or 127 <= ord(c) < 160]
        unreadable = len(control)
        text = text.translate({ord(c): " " for c in control})
    unreadable += text.count("\N{REPLACEMENT CHARACTER}")
    text = text.strip()
    if unreadable * 10 > len(text):
        raise BadSample(key, "caption is not UTF-8 text")
    if not text:
        raise BadSample(key, "empty caption")
    return text


def clean_captions(texts: Iterable[str | bytes], key: str) -> list[str]:
    """The usable captions of one example; `BadSample` with the first reason when there is none."""
    captions: list[str] = []
    first: BadSample | None = None
    for text in texts:
        try:
            captions.append(clean_caption(text, key))
        except BadSample as bad:
            first = first or bad
    if not captions:
        raise first or BadSample(key, "no caption")
    return captions


def caption_lines(data: bytes, key: str) -> list[str]:
    """The captions of a .txt file, one a line; empty lines mean nothing."""
    lines = _decode_text(data[: 64 * MAX_CAPTION]).split("\n")
    return clean_captions([line for line in lines if line.strip()] or [""], key)


def _decode_text(text: str | bytes) -> str:
    if isinstance(text, str):
        return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)  # bytes that a reader set aside, or broken JSON
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return text.decode("utf-16", "replace")
    return text.decode("utf-8-sig", "replace")
