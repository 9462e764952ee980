"""A few frames of an animated GIF or WebP, and the bounds that films have too."""

import io
import itertools
import time
import warnings
from bisect import bisect_right
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from PIL import Image

from pictura.data.decode import MAX_ELONGATION, MAX_PIXELS
from pictura.data.source import BadSample

MAX_FRAME = MAX_PIXELS // 4  # pixels; above 8K, and a decoder holds up to 17 of them
MAX_DECODED = 20_000  # packets and their frames for one clip; films have a whole picture every few hundred
MAX_SECONDS = 60.0  # of work for one clip
MAX_ANIMATED = 1_000  # frames of a GIF or WebP: each is drawn on the one before, so all of them are read

Pixels = npt.NDArray[np.uint8]


def middles(frames: int, start: Fraction, duration: Fraction) -> list[Fraction]:
    """The middles of so many equal parts of [start, start + duration)."""
    return [start + duration * (2 * i + 1) / (2 * frames) for i in range(frames)]


class Work:
    """What decoding one clip may cost."""

    def __init__(self, key: str) -> None:
        self.key, self.left, self.until = key, MAX_DECODED, time.monotonic() + MAX_SECONDS

    def spend(self, frames: int = 1) -> None:
        """So many more are decoded. BadSample where that, or the time since the beginning, is too much."""
        self.left -= frames
        if self.left < 0:
            raise BadSample(self.key, f"more than {MAX_DECODED // 2:,} frames to decode; encode it with more keyframes")
        if time.monotonic() > self.until:
            raise BadSample(self.key, f"more than {MAX_SECONDS:.0f} s of decoding")


def animated(content: bytes, frames: int, longest: int, key: str) -> list[Pixels]:
    """A GIF or WebP -> frames [y x 3]: once through for the times, as far as they are told, then those to be shown."""
    work = Work(key)
    with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=("GIF", "WEBP")) as image:
        warnings.filterwarnings("ignore", module="PIL")  # as in `decode`
        check_size(*image.size, key)
        count = getattr(image, "n_frames", 1)
        if count > MAX_ANIMATED:
            raise BadSample(key, f"{count:,} frames, more than {MAX_ANIMATED:,}")
        lasts: list[int] = []
        for place in range(count):
            work.spend()
            image.seek(place)
            image.load()
            lasts.append(max(0, int(image.info.get("duration", 0))))
        ends = list(itertools.accumulate(lasts if all(lasts) else [1] * count))  # without times, each as long
        wanted = [bisect_right(ends, when) for when in middles(frames, Fraction(0), Fraction(ends[-1]))]
        size, pictures = within(*image.size, longest), dict[int, Pixels]()
        for place in dict.fromkeys(wanted):
            work.spend()
            image.seek(place)
            pictures[place] = on_white(np.asarray(image.convert("RGBA").resize(size, Image.Resampling.BICUBIC)))
        return [pictures[place] for place in wanted]


def check_size(width: int, height: int, key: str) -> None:
    """As `decode` does for pictures."""
    if width * height > MAX_FRAME:
        raise BadSample(key, f"{width:,} x {height:,} pixels a frame, more than {MAX_FRAME:,}")
    if max(width, height) > MAX_ELONGATION * min(width, height):
        raise BadSample(key, f"{width:,} x {height:,} pixels a frame, too long and thin")


def within(width: int, height: int, longest: int) -> tuple[int, int]:
    """The size with a longer side of at most so many pixels, of the same shape."""
    scale = min(1.0, longest / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def on_white(pixels: Pixels) -> Pixels:
    """RGBA [y x 4] -> RGB [y x 3], what is clear being white."""
    alpha = pixels[..., 3:].astype(np.uint16)
    mixed = (pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return mixed.astype(np.uint8)
