from pathlib import Path

import pytest

from pictura.config import load
from pictura.data.sidecar import SidecarConfig
from pictura.data.source import BadSample, SourceConfig
from tests.data.files import jpeg, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for number, name in enumerate(["a.jpg", "sub/b.v2.png", "sub/alone.jpg"]):
        write(root / name, jpeg(number))
    write(root / "a.txt", "a first\r\n\r\n a second \n")
    write(root / "sub" / "b.v2.txt", "b in ein schönes Wort")
    write(root / "stray.txt", "no picture")
    return root


def test_one_caption_a_line(root: Path) -> None:
    source = load(SourceConfig, {"kind": "sidecar", "path": str(root)}).build()
    assert source.provides == {"image", "captions"}
    assert [source[0], source[1]] == [
        {"key": str(root / "a.jpg"), "image": jpeg(0), "captions": ["a first", "a second"]},
        {"key": str(root / "sub/b.v2.png"), "image": jpeg(1), "captions": ["b in ein schönes Wort"]},
    ]
    assert len(source) == 2
    assert list(source.all_captions()) == ["a first", "a second", "b in ein schönes Wort"]


def test_a_picture_without_text_is_named(root: Path) -> None:
    (bad,) = SidecarConfig(path=root).build().bad
    assert str(bad) == f"{root}/sub/alone.jpg: no alone.txt beside it"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "empty caption"),
        (b"\n \n", "empty caption"),
        (b"\x93\xfa\x96\x7b\x82\xcc", "not UTF-8"),
        (b"x" * 2**23, "above the limit"),
    ],
)
def test_bad_captions_are_bad_samples(root: Path, text: bytes, reason: str) -> None:
    write(root / "a.txt", text)
    source = SidecarConfig(path=root).build()
    with pytest.raises(BadSample, match=rf"a\.txt: .*{reason}"):
        source[0]
    assert source[1]["captions"]
    assert list(source.all_captions()) == ["b in ein schönes Wort"]


def test_a_caption_may_not_be_a_link_to_somebodys_secrets(root: Path, tmp_path: Path) -> None:
    (root / "a.txt").unlink()
    (root / "a.txt").symlink_to(write(tmp_path / "id_rsa", "secret"))
    with pytest.raises(BadSample, match="leads outside"):
        SidecarConfig(path=root).build()[0]
    assert SidecarConfig(path=root, outside_links=True).build()[0]["captions"] == ["secret"]


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        SidecarConfig(path=tmp_path / "none").build()
    with pytest.raises(ValueError, match="holds no picture"):
        SidecarConfig(path=tmp_path).build()
    write(tmp_path / "a.jpg", jpeg())
    with pytest.raises(ValueError, match=r"none of its 1 pictures has a \.txt beside it .*kind: folder"):
        SidecarConfig(path=tmp_path).build()
