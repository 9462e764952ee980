import os
import struct
import zipfile
from pathlib import Path

import pytest

from pictura.weights.archives import Archive


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as out:
        for name, data in members.items():
            out.writestr(name, data)
    return path


def claim(path: Path, member: bytes, size: int) -> None:
    """The directory at the end says that a member has so many bytes, unpacked."""
    data = bytearray(path.read_bytes())
    at = data.index(member, data.index(b"PK\x01\x02")) - 46
    data[at + 24 : at + 28] = struct.pack("<I", size)
    path.write_bytes(data)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members(tmp_path: Path, method: int) -> None:
    noise = os.urandom(3_000_000)
    with Archive(zipped(tmp_path / "a", {"x/a": b"1", "b": noise, "empty": b""}, method)) as archive:
        assert archive.names == ["x/a", "b", "empty"]
        assert [archive.size(name) for name in ("x/a", "b", "empty", "none")] == [1, 3_000_000, 0, -1]
        assert archive.read("b") == noise
        assert archive.read("empty") == b""
        with pytest.raises(ValueError, match=r"a: b has 3,000,000 bytes, more than the 9 of any real one"):
            archive.read("b", 9)
        with pytest.raises(ValueError, match=r"a: damaged, it has no none"):
            archive.read("none")


def test_every_cut_is_told(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a", {"a": b"0123456789", "b": b"xyz"})
    whole = path.read_bytes()
    for length in range(4, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"a: damaged or cut short at {length} bytes"):
            Archive(path)


def test_a_changed_byte_is_told(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a", {"a": b"0123456789"})
    path.write_bytes(path.read_bytes().replace(b"0123456789", b"0123456780"))
    with Archive(path) as archive, pytest.raises(ValueError, match=r"a: a in it is damaged \(Bad CRC-32"):
        archive.read("a")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "bomb", {f"{i}": bytes(30 << 20) for i in range(3)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(ValueError, match=r"bomb: refused, because its [\d,]+ bytes unpack to 94,371,840: no weights"):
        Archive(path)


def test_heads_of_zeros_are_no_bomb(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a", {"head": bytes(66 << 20), "rest": os.urandom(4 << 20)}, zipfile.ZIP_DEFLATED)
    with Archive(path) as archive:
        assert archive.size("head") == 66 << 20


def test_claims_beyond_the_file(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a", {"stored": b"0123456789"})
    claim(path, b"stored", 4_000_000_000)
    with pytest.raises(ValueError, match=r"stored claims 4,000,000,000 bytes, more than can be in this file of \d+"):
        Archive(path)
    path = zipped(tmp_path / "b", {"packed": b"0123456789"}, zipfile.ZIP_DEFLATED)
    claim(path, b"packed", 4_000_000_000)
    with pytest.raises(ValueError, match=r"packed claims 4,000,000,000 bytes"):
        Archive(path)


@pytest.mark.parametrize("size", [1000, 9_000_000])
def test_claims_that_only_unpacking_can_disprove(tmp_path: Path, size: int) -> None:
    """A member of 5 MB of zeros that claims fewer, or more: no more memory is taken than was claimed."""
    path = zipped(tmp_path / "a", {"packed": bytes(5 << 20) + os.urandom(9000)}, zipfile.ZIP_DEFLATED)
    claim(path, b"packed", size)
    with Archive(path) as archive, pytest.raises(ValueError, match="packed in it is damaged"):
        archive.read("packed")


def test_two_members_of_one_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a", "w") as out:
        out.writestr("one", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            out.writestr("one", b"2")
    with pytest.raises(ValueError, match="two members of this archive have one name"):
        Archive(tmp_path / "a")


def test_other_packings(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a", {"one": b"1"}, zipfile.ZIP_BZIP2)
    with pytest.raises(ValueError, match="one is packed by a method that no checkpoint"):
        Archive(path)
