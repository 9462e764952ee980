"""Small films made for the tests."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import av
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]


def grey(values: Iterable[int], size: tuple[int, int] = (48, 64)) -> list[Frame]:
    return [np.full((*size, 3), value, np.uint8) for value in values]


def levels(clip: Frame) -> list[float]:
    """What `grey` was given, more or less."""
    return [float(frame.mean()) for frame in clip]


def film(
    frames: Sequence[Frame],
    form: str = "mp4",
    codec: str = "mpeg4",
    *,
    rate: int = 10,
    pixels: str = "yuv420p",
    rotation: int = 0,
    g: int = 12,
    container: Mapping[str, str] | None = None,
) -> bytes:
    """Frames [y x 3] -> a file; `g`: frames from one whole picture to the next."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form, options=dict(container or {})) as file:
        stream: Any = file.add_stream(codec, rate=rate, options={"g": str(g), "q": "2"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if rotation:
            stream.set_display_rotation(rotation)
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixels)))
        file.mux(stream.encode())
    return buffer.getvalue()
