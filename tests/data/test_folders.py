import json
import os
from pathlib import Path
from typing import Any

import pytest

from pictura.config import load
from pictura.data.folders import FolderConfig
from pictura.data.source import BadSample, SourceConfig
from tests.data.files import jpeg, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for number, name in enumerate(["dog/b.jpg", "dog/deep/er/a.JPEG", "cat/c.png", "cat/.hidden.jpg", "cat/notes.txt"]):
        write(root / name, jpeg(number))
    write(root / ".cache" / "x.jpg", b"")
    write(root / "readme.md", "")
    return root


def test_classes_are_the_folders_sorted(root: Path) -> None:
    source = load(SourceConfig, {"kind": "folder", "path": str(root)}).build()
    assert source.provides == {"image", "label"}
    assert source.class_names == ("cat", "dog")
    examples = [source[index] for index in range(len(source))]
    assert [(Path(e["key"]).relative_to(root).as_posix(), e["label"]) for e in examples] == [
        ("cat/c.png", 0),
        ("dog/b.jpg", 1),
        ("dog/deep/er/a.JPEG", 1),
    ]
    assert [e["image"] for e in examples] == [jpeg(2), jpeg(0), jpeg(1)]
    with pytest.raises(IndexError):
        source[3]


def test_class_names_given(root: Path) -> None:
    source = FolderConfig(path=root, class_names=["dog", "mouse", "cat"]).build()
    assert source.class_names == ("dog", "mouse", "cat")
    assert [source[index]["label"] for index in range(3)] == [2, 0, 0]
    words = write(root.parent / "words.json", json.dumps({"cat": ["tabby cat"], "dog": ["hound", "dog"]}))
    assert FolderConfig(path=root, class_names=words).build().class_names == ("tabby cat", "hound")
    with pytest.raises(ValueError, match=r"class_names: no name for the folder 'dog'.*did you mean 'doge'"):
        FolderConfig(path=root, class_names=["cat", "doge"]).build()


def test_classes_named_by_digits(tmp_path: Path) -> None:
    for digit in "205":
        write(tmp_path / digit / "a.png", jpeg())
    source = FolderConfig(path=tmp_path).build()
    assert source.class_names == ("0", "2", "5")
    assert [source[index]["label"] for index in range(3)] == [0, 1, 2]


def test_mistakes(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pet: no such folder; did you mean 'pets'"):
        FolderConfig(path=root.parent / "pet").build()
    with pytest.raises(ValueError, match="a folder is needed here"):
        FolderConfig(path=root / "readme.md").build()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="it holds no picture"):
        FolderConfig(path=tmp_path / "empty").build()
    with pytest.raises(ValueError, match="without class folders; try `kind: sidecar`"):
        FolderConfig(path=root / "dog" / "deep" / "er").build()


def test_a_folder_that_cannot_be_listed_is_not_taken_for_empty(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match=r"dog/deep: cannot be listed: Permission denied"):
        FolderConfig(path=root).build()


def test_links(root: Path, tmp_path: Path) -> None:
    secret = write(tmp_path / "elsewhere" / "secret.jpg", jpeg(7))
    (root / "cat" / "a link.jpg").symlink_to(secret)
    (root / "cat" / "loop").symlink_to(root)  # goes round in circles if followed
    source = FolderConfig(path=root).build()
    with pytest.raises(BadSample, match=r"a link\.jpg: leads outside"):
        source[0]
    assert len(source) == 4
    trusting = FolderConfig(path=root, outside_links=True).build()
    assert trusting[0]["image"] == jpeg(7)
    (root / "bird").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"leads outside .* set outside_links: true if you trust it"):
        FolderConfig(path=root).build()
    assert FolderConfig(path=root, outside_links=True).build()[0]["image"] == jpeg(7)
    (tmp_path / "same").symlink_to(root)  # the folder itself may be a link
    assert len(FolderConfig(path=tmp_path / "same", outside_links=True).build()) == 5


def test_a_file_that_is_gone_or_broken_is_one_bad_sample(root: Path) -> None:
    source = FolderConfig(path=root).build()
    (root / "cat" / "c.png").unlink()
    with pytest.raises(BadSample, match=r"cat/c\.png: no such file"):
        source[0]
    assert source[1]["image"]
