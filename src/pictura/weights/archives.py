"""Zip archives that nobody vouches for: what is in them is checked before anything of it is unpacked.

PyTorch's and NumPy's files are such archives. A hostile one claims more than it holds, or unpacks to far more than it
is (Fifield, A better zip bomb, 2019).
"""

import struct
import zipfile
import zlib
from pathlib import Path
from types import TracebackType

SMALL = 64 << 20  # bytes that may come of any archive, however well they are packed
TIMES = 20  # weights are noise: packing saves a tenth of them; a head of zeros beside them, somewhat more
DEFLATE = 1032  # what each byte of a deflated member can become, at most (RFC 1951)
PIECE = 1 << 20


class Archive:
    """A zip archive, open for reading: `names`, and the bytes of each. ValueError, with the file, for a bad one."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
            size = file.stat().st_size
            raise ValueError(f"{file}: damaged or cut short at {size} bytes ({error}); copy it again") from error
        self._members = {info.filename: info for info in self._zip.infolist() if not info.is_dir()}
        try:
            self._check()
        except ValueError:
            self._zip.close()
            raise

    def __enter__(self) -> "Archive":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    @property
    def names(self) -> list[str]:
        return list(self._members)

    def size(self, name: str) -> int:
        """Bytes of a member, unpacked; -1 if there is none of that name."""
        return self._members[name].file_size if name in self._members else -1

    def read(self, name: str, most: int | None = None) -> bytearray:
        """A member, unpacked. ValueError where it has more bytes than `most`, or others than it was packed with."""
        size = self.size(name)
        if size < 0:
            raise ValueError(f"{self.file}: damaged, it has no {name}")
        if most is not None and size > most:
            raise ValueError(f"{self.file}: {name} has {size:,} bytes, more than the {most:,} of any real one")
        out, done = bytearray(size), 0
        try:
            with self._zip.open(name) as member:
                while piece := member.read(PIECE):
                    if done + len(piece) > size:
                        raise zipfile.BadZipFile("more bytes than it claims")
                    out[done : done + len(piece)] = piece
                    done += len(piece)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
            raise ValueError(f"{self.file}: {name} in it is damaged ({error}); copy it again") from error
        if done != size:
            raise ValueError(f"{self.file}: {name} in it is damaged ({done:,} of {size:,} bytes); copy it again")
        return out

    def _check(self) -> None:
        members, size = self._members.values(), self.file.stat().st_size
        if sum(not info.is_dir() for info in self._zip.infolist()) > len(members):
            raise ValueError(f"{self.file}: refused, because two members of this archive have one name")
        for info in members:
            stored = info.compress_type == zipfile.ZIP_STORED
            if not stored and info.compress_type != zipfile.ZIP_DEFLATED:
                raise ValueError(f"{self.file}: {info.filename} is packed by a method that no checkpoint is packed by")
            most = info.compress_size if stored else DEFLATE * info.compress_size
            if info.file_size > most or info.header_offset + info.compress_size > size:
                raise ValueError(
                    f"{self.file}: refused, because {info.filename} claims {info.file_size:,} bytes, more than can be "
                    f"in this file of {size:,}"
                )
        packed, unpacked = (sum(getattr(info, key) for info in members) for key in ("compress_size", "file_size"))
        if packed > size or unpacked > max(SMALL, TIMES * packed):
            raise ValueError(
                f"{self.file}: refused, because its {size:,} bytes unpack to {unpacked:,}: no weights can be packed so "
                "tightly"
            )
