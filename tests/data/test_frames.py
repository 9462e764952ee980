from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from pictura.data.batches import BadSamples, ordered
from pictura.data.frames import Frames, Sheets, sheet
from pictura.data.scenes import ScenesConfig
from pictura.data.source import BadSample, Example, Source
from pictura.data.views import CropConfig


class Clips(Source):
    """`lengths` frames each, of the value 10 x clip + frame; None is one that cannot be read. `reads` counts."""

    provides = frozenset({"clip", "label"})
    class_names = ("a", "b")

    def __init__(self, lengths: Sequence[int | None]) -> None:
        self.lengths, self.reads = lengths, list[int]()

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Example:
        self.reads.append(index)
        length = self.lengths[index]
        if length is None:
            raise BadSample(f"clip {index}", "made to be broken")
        clip = np.stack([np.full((4, 6, 3), 10 * index + frame, np.uint8) for frame in range(length)])
        return cast(Example, {"key": f"clip {index}", "clip": clip, "label": index % 2})


def test_frames_in_order_each_clip_read_once() -> None:
    clips = Clips([None, 3, 3, None, 3])
    frames = Frames(clips)
    assert frames.count == 3 and len(frames) == 15 and frames.provides == {"image", "label"}
    clips.reads.clear()
    bad = BadSamples()
    view = CropConfig(image_size=4).build()
    batches = list(ordered(frames, view, None, 4, bad=bad))
    assert [i for batch in batches for i in batch["index"].tolist()] == [3, 4, 5, 6, 7, 8, 12, 13, 14]
    assert [i for batch in batches for i in batch["label"].tolist()] == [1, 1, 1, 0, 0, 0, 0, 0, 0]
    values = [int(image.float().mean()) for batch in batches for image in batch["image"]]
    assert values == [10, 11, 12, 20, 21, 22, 40, 41, 42]
    assert clips.reads == [0, 1, 2, 3, 4]
    assert [key for key, _ in bad] == ["clip 0", "clip 3"]  # once, not once a frame


def test_a_clip_of_another_length_is_bad() -> None:
    frames = Frames(Clips([2, 3]))
    with pytest.raises(BadSample, match="clip 1: a clip of 3 frames among clips of 2"):
        frames[2]
    with pytest.raises(IndexError):
        frames[4]


def test_sheets() -> None:
    sheets = Sheets(Frames(Clips([5, 5])), across=3)
    image: Any = sheets[1]["image"]
    assert image.shape == (8, 18, 3) and sheets[1]["label"] == 1 and len(sheets) == 2
    assert image[::4, ::6, 0].tolist() == [[10, 11, 12], [13, 14, 255]]
    assert sheet(np.zeros((2, 4, 6, 3), np.uint8), 4).shape == (4, 12, 3)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="the data has no clip, only captions, image; try kind: videos"):
        Frames(ScenesConfig(count=2).build())
    with pytest.raises(ValueError, match="not one of 2 clips can be read; the first is clip 0: made to be"):
        Frames(Clips([None, None]))


def test_scenes_give_clips() -> None:
    source = ScenesConfig(count=2, gives=("clip",), frames=3, image_size=16).build()
    frames = Frames(source)
    clip = cast(Any, source[1])["clip"]
    assert all(np.array_equal(np.asarray(frames[3 + i]["image"]), clip[i]) for i in range(3))
