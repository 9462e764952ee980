"""`videos`: one folder per class, short films inside, at any depth: the layout of UCF101, HMDB51 and Kinetics.

`read_clip` takes a few frames of a film, evenly over its time: of t equal parts the frame that is shown in the middle
of each (Wang et al., Temporal Segment Networks, 2016, without chance). Films are PyAV's (FFmpeg), animated GIF and WebP
are Pillow's, since FFmpeg reads no animated WebP.
"""

import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

import numpy as np

from pictura.data.animations import MAX_FRAME, Pixels, Work, animated, check_size, middles, on_white, within
from pictura.data.folders import Folder, FolderConfig
from pictura.data.source import BadSample, Example, read_file, shown, under

VIDEO_SUFFIXES = frozenset(
    {"mp4", "m4v", "mov", "3gp", "mkv", "webm", "avi", "mpg", "mpeg", "mts", "m2ts", "wmv", "asf", "flv", "ogv"}
) | {"gif", "webp"}
MAX_FILM = 8 * 2**30  # bytes of a file, of which only the parts around the frames are read
FAR = 5.0  # seconds to the next frame beyond which looking for the nearest whole picture is quicker
# FFmpeg guesses a format by content; what is named here opens no other file and no address, as playlists do.
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg"
_OPTIONS = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "none", "max_pixels": str(MAX_FRAME)}


@dataclass(frozen=True, kw_only=True)
class VideosConfig(FolderConfig):
    """`path/class/…/film.mp4`; the classes are the folders' names, sorted; each example gives a `clip` and a `label`.

    class_names, outside_links: as for kind `folder`. frames: how many of each film, evenly over its time; one
    that has fewer repeats some. longest: frames are scaled down to so many pixels of their longer side.
    """

    kind: ClassVar[str] = "videos"
    frames: int = 8
    longest: int = 512

    def __post_init__(self) -> None:
        check_clip(self.frames, self.longest)

    def build(self) -> "Videos":
        return Videos(self)


class Videos(Folder):
    """`clip`: uint8 [t y x 3], with the label of the folder that the film lies in."""

    provides = frozenset({"clip", "label"})
    what = "video"
    suffixes = VIDEO_SUFFIXES
    unsorted = "; put each into a folder that says what happens in it"

    def __init__(self, config: VideosConfig) -> None:
        super().__init__(config)
        _av()
        self.frames, self.longest = config.frames, config.longest

    def __getitem__(self, index: int) -> Example:
        name = self._names[index]
        key = shown(os.path.join(self._root, name))
        path = os.path.join(self._root, name) if self._links else under(self._root, name)
        clip = read_clip(Path(path), self.frames, self.longest, key=key)
        return cast(Example, {"key": key, "clip": clip, "label": int(self._labels[index])})


def check_clip(frames: int, longest: int) -> None:
    """ValueError for a clip of no frames, or of frames without pixels."""
    if not 1 <= frames <= 1024:
        raise ValueError(f"frames: {frames} must be from 1 to 1024; try 8")
    if longest < 1:
        raise ValueError(f"longest: {longest} px leaves nothing to see; try 512")


def read_clip(data: bytes | Path, frames: int = 8, longest: int = 512, *, key: str = "") -> Pixels:
    """A film, as bytes or as a file -> uint8 RGB [t y x 3]: of `frames` equal parts of its time the frame shown in the
    middle of each, upright, scaled down to `longest` px, transparency laid on white.

    A film of fewer frames repeats them. Raises `BadSample`, naming `key` (a file's own name by default), for what is no
    film, is broken, or takes too much: of bytes, of pixels in a frame, of frames to decode, of time.
    """
    check_clip(frames, longest)
    _av()  # a missing package is no fault of the film
    key = key or (shown(str(data)) if isinstance(data, Path) else "")
    try:
        with io.BytesIO(data) if isinstance(data, bytes) else _opened(data, key) as file:
            head = file.read(16)
            file.seek(0)
            if not head:
                raise BadSample(key, "empty file")
            if head[:4] == b"GIF8" or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
                content = data if isinstance(data, bytes) else read_file(str(data), key)
                pictures = animated(content, frames, longest, key)
            else:
                pictures = _filmed(file, frames, longest, key)
            return np.stack(pictures)
    except BadSample:
        raise
    except Exception as error:  # as in `decode`: hostile bytes meet every type of error there is
        raise BadSample(key, f"not a video, or damaged: {_said(error)}") from error


def _said(error: Exception) -> str:
    """Without FFmpeg's number and the name that it has for a file in hand."""
    return getattr(error, "strerror", None) or str(error).strip() or type(error).__name__


def _opened(path: Path, key: str) -> BinaryIO:
    """A regular file of bounded size; a named pipe is refused, so nothing hangs."""
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")
    except FileNotFoundError:
        raise BadSample(key, "no such file") from None
    except (OSError, ValueError) as error:
        raise BadSample(key, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILM:
        file.close()
        above = f"{status.st_size:,} bytes, above the limit of {MAX_FILM:,}"
        raise BadSample(key, above if stat.S_ISREG(status.st_mode) else "not a regular file")
    return file


def _av() -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        raise ValueError("videos: PyAV is not installed; pip install av") from None
    return av


def _filmed(file: BinaryIO, frames: int, longest: int, key: str, duration: Fraction | None = None) -> list[Pixels]:
    """Through FFmpeg, in one thread: a loader has its workers. duration: in seconds, where it is known."""
    work = Work(key)
    with _av().open(file, options=_OPTIONS, metadata_errors="replace") as container:
        stream = container.streams.best("video")
        if stream is None:
            raise BadSample(key, "holds no moving pictures")
        stream.thread_type, stream.codec_context.thread_count = "SLICE", 1
        stream.codec_context.options = {"max_pixels": str(MAX_FRAME)}
        start = Fraction((stream.start_time or 0) * stream.time_base)
        duration = duration or _duration(container, stream)
        if duration is not None:
            found = _shown_at(container, stream, middles(frames, start, duration), duration / frames, work)
            return list(_drawn(found, longest, key))
        measured = _measured(container, stream, start, work)
    file.seek(0)
    return _filmed(file, frames, longest, key, measured or Fraction(1))


def _duration(container: Any, stream: Any) -> Fraction | None:
    """What the file says, in seconds; None where it says nothing."""
    if stream.duration and stream.duration > 0:
        return Fraction(stream.duration * stream.time_base)
    return Fraction(container.duration, 1_000_000) if container.duration and container.duration > 0 else None


def _measured(container: Any, stream: Any, start: Fraction, work: Work) -> Fraction:
    """How long a film is that does not say so, as what a browser recorded: its packets are read, and none decoded."""
    end = start
    for packet in container.demux(stream):
        work.spend(0)
        if packet.pts is not None:
            end = max(end, (packet.pts + (packet.duration or 0)) * stream.time_base)
    return end - start


def _shown_at(container: Any, stream: Any, times: list[Fraction], apart: Fraction, work: Work) -> Iterator[Any]:
    """The frame that is on the screen at each of the rising `times`, in seconds, `apart` from each other."""
    alone = bool(stream.duration) or len(container.streams) == 1  # else the sound may be what lasts longer
    decoded = _decoded(container, stream, work)
    now: Any = None  # the latest frame that is not after the time, and the one after it
    after: Any = next(decoded, None)
    if after is None:
        raise BadSample(work.key, "not one frame can be decoded")
    for when in times:
        if after is not None and when - _time(after, stream) > FAR:
            # a second earlier: what comes first in the file may be shown later
            container.seek(int((when - 1) / stream.time_base), stream=stream, backward=True)
            decoded = _decoded(container, stream, work)
            now, after = after, next(decoded, None)
        while after is not None and _time(after, stream) <= when:
            now, after = after, next(decoded, None)
        if after is None and alone and _time(now, stream) + _lasts(now, stream) + apart < when:
            seen, there = float(_time(now, stream)), float(when)
            raise BadSample(work.key, f"cut short or damaged: nothing after {seen:.1f} s, and {there:.1f} s is in it")
        yield after if now is None else now


def _decoded(container: Any, stream: Any, work: Work) -> Iterator[Any]:
    for packet in container.demux(stream):
        work.spend()
        for frame in packet.decode():
            work.spend()
            yield frame


def _time(frame: Any, stream: Any) -> Fraction:
    return Fraction((frame.pts or 0) * stream.time_base)


def _lasts(frame: Any, stream: Any) -> Fraction:
    return Fraction((frame.duration or 0) * stream.time_base)


def _drawn(found: Iterator[Any], longest: int, key: str) -> Iterator[Pixels]:
    """Frames -> pixels [y x 3], of one size even where a film changes its own, upright."""
    size: tuple[int, int] | None = None
    last: tuple[Any, Pixels] | None = None
    for frame in found:
        if last is not None and last[0] is frame:
            yield last[1]
            continue
        check_size(frame.width, frame.height, key)
        size = size or within(frame.width, frame.height, longest)
        alpha = frame.format.has_palette or any(component.is_alpha for component in frame.format.components)
        form = "rgba" if alpha else "rgb24"
        array = frame.to_ndarray(width=size[0], height=size[1], format=form, interpolation="BICUBIC")
        pixels = on_white(array) if alpha else array
        pixels = np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
        last = frame, pixels
        yield pixels
