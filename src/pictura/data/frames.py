"""The frames of a source's clips as pictures, so that whatever looks at pictures can look at films."""

from typing import cast

import numpy as np
import numpy.typing as npt

from pictura.data.source import BadSample, Example, Source

Clip = npt.NDArray[np.uint8]  # [t y x 3]


class Frames(Source):
    """Example i is frame i % t of clip i // t; every clip has the same number of frames t, `count`.

    The latest clip is kept: read in order, each is decoded once (twice where loader workers share one). A clip that
    cannot be read is a `BadSample` of the clip's own key for each of its frames, so that it is counted once.
    """

    def __init__(self, source: Source) -> None:
        """ValueError for a source without clips."""
        if "clip" not in source.provides:
            given = ", ".join(sorted(source.provides)) or "nothing"
            raise ValueError(
                f"the data has no clip, only {given}; try kind: videos, or kind: scenes with gives: [clip]"
            )
        self.source, self.bad = source, source.bad
        self.class_names, self.least_classes = source.class_names, source.least_classes
        self.provides = frozenset({"image"} | source.provides & {"label"})
        self._at, self._latest = -1, cast(Example | BadSample, None)
        self.count = self._frames()

    def _frames(self) -> int:
        first: BadSample | None = None
        for index in range(len(self.source)):
            try:
                return len(self._read(index))
            except BadSample as bad:
                first = first or bad
        raise ValueError(
            f"not one of {len(self.source):,} clips can be read{f'; the first is {first}' if first else ''}"
        )

    def __len__(self) -> int:
        return len(self.source) * self.count

    def __getitem__(self, index: int) -> Example:
        place, frame = divmod(range(len(self))[index], self.count)
        clip = self.clip(place)
        example = cast(Example, self._latest)
        picture: Example = {"key": example["key"], "image": clip[frame]}
        if "label" in self.provides:
            picture["label"] = example["label"]
        return picture

    def clip(self, place: int) -> Clip:
        """uint8 [t y x 3]. BadSample for one that cannot be read, or has other than `count` frames."""
        clip = self._read(place)
        if len(clip) != self.count:
            key = cast(Example, self._latest)["key"]
            raise BadSample(key, f"a clip of {len(clip)} frames among clips of {self.count}")
        return clip

    def _read(self, place: int) -> Clip:
        if place != self._at:
            try:
                self._latest = self.source[place]
            except BadSample as bad:
                self._latest = bad
            self._at = place
        if isinstance(self._latest, BadSample):
            raise self._latest
        clip: Clip = cast(dict[str, Clip], self._latest)["clip"]
        return clip


class Sheets(Source):
    """Example i is clip i as one picture: its frames in reading order, `across` in a row."""

    def __init__(self, frames: Frames, across: int = 4) -> None:
        self.frames, self.across = frames, across
        self.provides, self.bad = frames.provides, frames.bad
        self.class_names, self.least_classes = frames.class_names, frames.least_classes

    def __len__(self) -> int:
        return len(self.frames.source)

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        example = self.frames[index * self.frames.count]
        return cast(Example, {**example, "image": sheet(self.frames.clip(index), self.across)})


def sheet(clip: Clip, across: int) -> Clip:
    """[t y x 3] -> [rows·y across·x 3], frames in reading order, with a white one for each that is missing."""
    t, y, x, c = clip.shape
    across = min(across, t)
    rows = -(-t // across)
    full = np.full((rows * across, y, x, c), 255, np.uint8)
    full[:t] = clip
    return full.reshape(rows, across, y, x, c).swapaxes(1, 2).reshape(rows * y, across * x, c)
