import contextlib
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pictura.data.source import BadSample, Classes
from pictura.data.tar import Damaged, Field, Layout, Member, members, split_name
from tests.data.files import tar_bytes

FORMS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


class Bytes:
    """A `Reader` of bytes in memory."""

    def __init__(self, content: bytes) -> None:
        self.content, self.position = content, 0

    def read(self, size: int) -> bytes:
        piece = self.content[self.position : self.position + size]
        self.position += len(piece)
        return piece

    def has(self, end: int) -> bool:
        return end <= len(self.content)

    def skip_to(self, position: int) -> None:
        self.position = position


def walk(content: bytes) -> list[Member]:
    return list(members(Bytes(content)))


names = st.lists(st.text("abé.日 _-", min_size=1, max_size=60), min_size=1, max_size=4).map("/".join)


@settings(deadline=None)
@given(st.lists(st.tuples(names, st.binary(max_size=1500)), max_size=6), st.sampled_from(FORMS))
def test_members_are_those_of_tarfile(files: list[tuple[str, bytes]], form: int) -> None:
    if form == tarfile.USTAR_FORMAT:
        files = [(name[:30], content) for name, content in files]
    content = tar_bytes(files, form)
    with tarfile.open(fileobj=io.BytesIO(content)) as theirs:
        expected = [(member.name, member.offset_data, member.size) for member in theirs if member.isreg()]
    assert [tuple(member) for member in walk(content)] == expected


@pytest.mark.parametrize("form", FORMS)
def test_long_names_links_and_folders(tmp_path: Path, form: int) -> None:
    path = tmp_path / "a.tar"
    long = "/".join(["folder" * 5] * 4) + "/name.jpg"  # needs ustar's prefix
    with tarfile.open(path, "w", format=form) as file:
        for name, kind in [
            ("folder", tarfile.DIRTYPE),
            ("link", tarfile.SYMTYPE),
            ("hard", tarfile.LNKTYPE),
            ("pipe", tarfile.FIFOTYPE),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            file.addfile(info)
        info = tarfile.TarInfo(long)
        info.mtime = 1.5  # makes PAX write its extra header
        file.addfile(info)
    assert [member.name for member in walk(path.read_bytes())] == [long]


def test_sizes_of_8_gib_and_more() -> None:
    info = tarfile.TarInfo("big")
    info.size = 10 * 2**30
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        header = info.tobuf(form)

        class Endless(Bytes):
            def has(self, end: int) -> bool:
                return True

        walk = members(Endless(header))
        assert next(walk) == ("big", len(header), 10 * 2**30)
        with pytest.raises(Damaged, match="cut short"):
            next(walk)


@pytest.mark.parametrize("form", FORMS)
def test_a_tar_cut_anywhere_gives_its_whole_members(form: int) -> None:
    files = [(f"{'long' * 40 if number == 1 else ''}{number}.txt", b"x" * 700) for number in range(3)]
    if form == tarfile.USTAR_FORMAT:
        files = [(name[-5:], content) for name, content in files]
    content = tar_bytes(files, form)
    whole = walk(content)
    assert len(whole) == 3
    last = whole[-1].offset + 1024  # beyond it are only zero blocks
    for cut in range(0, last + 1, 64):
        found = members(Bytes(content[:cut]))
        expected = [member for member in whole if member.offset + member.size <= cut]
        assert [next(found) for _ in expected] == expected
        with pytest.raises(Damaged, match=r"cut short.* \(at byte [\d,]+\)"):
            next(found)
    assert walk(content[: last + 512]) == whole  # one block of zeros is an end


def test_a_size_below_zero_does_not_go_round_in_circles() -> None:
    content = bytearray(tar_bytes([("a", b"x")]))
    content[124:136] = b"-0000001000\0"
    content[148:156] = b"%06o\0 " % (sum(content[:148]) + 256 + sum(content[156:512]))
    with pytest.raises(Damaged, match="no header"):
        walk(bytes(content))


def test_damage_in_the_middle_is_not_taken_for_the_end() -> None:
    content = bytearray(tar_bytes([(f"{number}.txt", b"x" * 700) for number in range(3)]))
    content[2 * 1536 + 5] ^= 1  # in the header of the third
    with pytest.raises(Damaged, match=r"no header where one should be \(at byte 3,072\)"):
        walk(bytes(content))
    with pytest.raises(Damaged, match="not a tar"):
        walk(b"<html>" + b"x" * 600)
    with pytest.raises(Damaged, match="cut short"):
        walk(b"")


@settings(deadline=None, max_examples=200)
@given(st.data(), st.sampled_from(FORMS))
def test_any_damage_ends_in_members_or_damaged(draw: Any, form: int) -> None:
    content = bytearray(tar_bytes([("a" * 60 + "/" + "a" * 60, b"x"), ("b", b"")], form)[:4096])
    for place in draw.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = draw.draw(st.integers(0, 255))
    for start in (0, 512, 1024, 1536):  # make the check sums right again, so that the damage goes deeper
        total = sum(content[start : start + 148]) + 256 + sum(content[start + 156 : start + 512])
        content[start + 148 : start + 156] = b"%06o\0 " % total
    with contextlib.suppress(Damaged):
        walk(bytes(content))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("a.jpg", ("a", "jpg")),
        ("a.b.jpg", ("a", "b.jpg")),
        ("a/b.seg.PNG", ("a/b", "seg.png")),
        ("./a/b.c.d.JSON", ("a/b", "c.d.json")),
        ("a.b/c.jpg", ("a.b/c", "jpg")),
        ("x/y.z/w.txt", ("x/y.z/w", "txt")),
    ],
)
def test_names_split_at_the_first_dot_of_the_file(name: str, split: tuple[str, str]) -> None:
    assert split_name(name) == split


@pytest.mark.parametrize("name", ["a", ".hidden", "._a.jpg", "a/.b.jpg", "__MACOSX.txt", "a.", "a/"])
def test_names_that_are_no_part(name: str) -> None:
    assert split_name(name) is None


def test_fields() -> None:
    assert Field.parse("txt") == ("txt", ())
    assert Field.parse(".TXT") == ("txt", ())
    assert Field.parse("json.meta.Caption") == ("json", ("meta", "Caption"))
    assert Field.parse("left.json.a") == ("left.json", ("a",))
    parts = {"json": b'{"meta": {"n": [1]}, "x": 3}', "bad.json": b"{", "txt": b"words"}
    assert Field.parse("json.meta.n").value(parts, "k") == [1]
    assert Field.parse("json.x.y").value(parts, "k") is None
    assert Field.parse("json.nothing").value(parts, "k") is None
    assert Field.parse("cls").value(parts, "k") is None
    assert Field.parse("txt").value(parts, "k") == b"words"
    with pytest.raises(BadSample, match=r"k: its bad\.json is not JSON"):
        Field.parse("bad.json.x").value(parts, "k")


def test_examples() -> None:
    parts = {
        "png": b"p",
        "jpg": b"j",
        "txt": b"one\ntwo",
        "json": b'{"caption": ["three", ""], "y": ["cat", "x"]}',
        "cls": b" dog\n",
    }
    usual = Layout.of(None, None, None)
    assert usual.example(parts, "k", None) == {"key": "k", "image": b"j", "captions": ["one", "two"]}
    all_of_them = Layout.of(["png"], ["txt", "json.caption"], "json.y")
    assert all_of_them.example(parts, "k", Classes.of(["dog", "cat"])) == {
        "key": "k",
        "image": b"p",
        "captions": ["one", "two", "three"],
        "label": 1,
    }
    assert Layout.of(None, [], "cls").example(parts, "k", Classes.of(["dog"])) == {
        "key": "k",
        "image": b"j",
        "label": 0,
    }
    assert usual.captions_of({"json": b'{"caption": "x"}'}, "k") == ["x"]
    for wrong, reason in [
        ({"txt": b"x"}, r"no picture among its parts \(txt\)"),
        ({"jpg": b"x"}, "no caption"),
        ({"jpg": b"x", "txt": b" "}, "empty caption"),
        ({"jpg": b"x", "json": b'{"caption": 5}'}, "no caption"),
        ({"jpg": b"x", "json": b"{"}, "not JSON"),
    ]:
        with pytest.raises(BadSample, match=reason):
            usual.example(wrong, "k", None)
    with pytest.raises(BadSample, match="no label"):
        Layout.of(None, [], "cls").example({"jpg": b"x"}, "k", Classes.of(["dog"]))
