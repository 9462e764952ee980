import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pictura.config import load
from pictura.data import animations, videos
from pictura.data.source import BadSample, SourceConfig
from pictura.data.videos import VideosConfig, read_clip
from tests.data.files import write
from tests.data.films import film, grey, levels


def animation(frames: Sequence[np.ndarray[Any, Any]], form: str, durations: list[int]) -> bytes:
    pictures = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    lossless = {"lossless": True} if form == "WEBP" else {}
    pictures[0].save(buffer, form, save_all=True, append_images=pictures[1:], duration=durations, **lossless)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["mp4", "avi", "matroska", "mpegts"])
def test_frames_are_the_middles_of_equal_parts(form: str) -> None:
    data = film(grey(range(0, 200, 10)), form)  # 20 frames
    for frames in (1, 4, 5, 7, 20, 33):
        middles = [int((i + 0.5) * 20 / frames) for i in range(frames)]
        clip = read_clip(data, frames)
        assert clip.shape == (frames, 48, 64, 3) and clip.dtype == np.uint8
        np.testing.assert_allclose(levels(clip), [10 * frame for frame in middles], atol=4)


@pytest.mark.parametrize("keyframes", [4, 1000])
@pytest.mark.parametrize("form", ["mp4", "avi", "matroska"])
def test_far_frames_are_sought(form: str, keyframes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = film(grey(range(0, 240, 10)), form, rate=1, g=keyframes)  # 24 s
    decoded = []
    spend = animations.Work.spend
    monkeypatch.setattr(animations.Work, "spend", lambda self, n=1: (decoded.append(n), spend(self, n))[1])
    np.testing.assert_allclose(levels(read_clip(data, 3)), [40, 120, 200], atol=4)
    assert keyframes == 1000 or len(decoded) < 35  # packets and frames; all of them would be 48
    np.testing.assert_allclose(levels(read_clip(data, 24)), range(0, 240, 10), atol=4)


def test_a_film_that_does_not_say_how_long_it_is() -> None:
    data = film(grey(range(0, 200, 10)), "webm", "libvpx", container={"live": "1"})
    np.testing.assert_allclose(levels(read_clip(data, 5)), [20, 60, 100, 140, 180], atol=4)


@pytest.mark.parametrize("form", ["GIF", "WEBP"])
def test_animations_by_their_times(form: str) -> None:
    data = animation(grey([0, 50, 100, 150]), form, [100, 100, 100, 500])
    assert levels(read_clip(data, 8)) == pytest.approx([0, 50, 100, 150, 150, 150, 150, 150], abs=2)
    assert levels(read_clip(animation(grey([7]), form, [0]), 3)) == pytest.approx([7, 7, 7], abs=2)
    even = animation(grey([0, 100]), form, [0, 0])
    assert levels(read_clip(even, 2)) == pytest.approx([0, 100], abs=2)


def test_what_is_clear_is_white() -> None:
    buffer = io.BytesIO()
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    clear.paste((0, 0, 0, 255), (0, 0, 4, 8))
    clear.save(buffer, "WEBP", lossless=True)
    (frame,) = read_clip(buffer.getvalue(), 1)
    assert (frame[:, :4] == 0).all() and (frame[:, 4:] == 255).all()


def test_frames_are_scaled_down_and_stand_upright() -> None:
    tall = np.zeros((48, 64, 3), np.uint8)
    tall[:, :32] = 250  # bright on the left
    plain = film([tall] * 3)
    assert read_clip(plain, 2, 32).shape == (2, 24, 32, 3)
    assert read_clip(plain, 2, 9999).shape == (2, 48, 64, 3)
    turned = read_clip(film([tall] * 3, rotation=90), 1, 32)[0]  # a quarter counterclockwise
    assert turned.shape == (32, 24, 3)
    assert turned[-8:].mean() > 200 and turned[:8].mean() < 50


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty file"),
        (b"hello, not a film" * 100, "not a video, or damaged: Invalid data"),
        (bytes(5000), "not a video"),
        (b"GIF89a" + bytes(50), "not a video, or damaged"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "not a video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "Invalid argument"),  # a list of other files
        (film(grey(range(20)), "mp4")[:-300], "not one frame can be decoded"),
        (film(grey(range(0, 200, 10)), "matroska")[:1300], "cut short or damaged: nothing after"),
    ],
)
def test_what_is_no_film_is_a_bad_sample(data: bytes, said: str) -> None:
    with pytest.raises(BadSample, match=said) as caught:
        read_clip(data, key="a/b.mp4")
    assert caught.value.key == "a/b.mp4"


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    data, wide = film(grey(range(20))), film([np.zeros((16, 1616, 3), np.uint8)])
    with pytest.raises(BadSample, match="1,616 x 16 pixels a frame, too long and thin"):
        read_clip(wide)
    gif = animation(grey(range(5)), "GIF", [100] * 5)
    for module, name, value, film_of, said in (
        (animations, "MAX_DECODED", 10, data, "more than 5 frames to decode"),
        (animations, "MAX_SECONDS", -1.0, data, "s of decoding"),
        (animations, "MAX_FRAME", 1000, data, "64 x 48 pixels a frame, more than 1,000"),
        (animations, "MAX_FRAME", 1000, gif, "64 x 48 pixels a frame, more than 1,000"),
        (animations, "MAX_ANIMATED", 4, gif, "5 frames, more than 4"),
        (animations, "MAX_DECODED", 3, gif, "frames to decode"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            with pytest.raises(BadSample, match=said):
                read_clip(film_of)


def test_a_huge_frame_is_refused_by_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it takes is taken before a frame can be looked at."""
    data = film(grey(range(3)))
    monkeypatch.setattr(videos, "MAX_FRAME", 1000)
    with pytest.raises(BadSample, match="not a video, or damaged"):
        read_clip(data)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "acts" / "jump" / "deep" / "b.MP4", film(grey([10, 20, 30])))
    write(tmp_path / "acts" / "run" / "a.gif", animation(grey([40, 60]), "GIF", [100, 100]))
    write(tmp_path / "acts" / "run" / "notes.jpg", b"no film")
    return tmp_path / "acts"


def test_a_folder_of_folders(root: Path) -> None:
    source = load(SourceConfig, {"kind": "videos", "path": str(root), "frames": 2, "longest": 16}).build()
    assert source.provides == {"clip", "label"} and source.class_names == ("jump", "run") and len(source) == 2
    first, second = source[0], source[1]
    assert first["key"] == str(root / "jump/deep/b.MP4") and (first["label"], second["label"]) == (0, 1)
    assert first["clip"].shape == (2, 12, 16, 3)
    np.testing.assert_allclose(levels(second["clip"]), [40, 60], atol=2)


def test_links_and_pipes(root: Path, tmp_path: Path) -> None:
    secret = write(tmp_path / "elsewhere" / "x.mp4", film(grey([90])))
    (root / "jump" / "a link.mp4").symlink_to(secret)
    with pytest.raises(BadSample, match=r"a link\.mp4: leads outside"):
        VideosConfig(path=root).build()[0]
    assert levels(VideosConfig(path=root, outside_links=True, frames=1).build()[0]["clip"]) == pytest.approx(
        [90], abs=3
    )
    os.mkfifo(root / "jump" / "pipe.mp4")
    with pytest.raises(BadSample, match=r"pipe\.mp4: not a regular file"):
        VideosConfig(path=root).build()[1]
    with pytest.raises(BadSample, match="no such file"):
        read_clip(root / "none.mp4")


def test_mistakes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="frames: 0 must be from 1"):
        VideosConfig(path=root, frames=0)
    with pytest.raises(ValueError, match="longest: 0 px"):
        VideosConfig(path=root, longest=0)
    with pytest.raises(ValueError, match="one folder of videos per class is needed, but it holds videos without class"):
        VideosConfig(path=root / "jump" / "deep").build()
    with pytest.raises(ValueError, match="class_names: no name for the folder 'run'"):
        VideosConfig(path=root, class_names=["jump", "runs"]).build()
    (root / "jump" / "deep" / "b.MP4").unlink()
    (root / "run" / "a.gif").unlink()
    with pytest.raises(ValueError, match="it holds no video"):
        VideosConfig(path=root).build()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match="pip install av"):
        read_clip(b"")
