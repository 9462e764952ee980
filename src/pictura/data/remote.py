"""The bytes of a file that lies elsewhere, front to back.

http and https are read with Python's own client, which needs nothing installed and takes up again where a connection
broke; every other scheme with fsspec, which asks for its plug-in (s3fs, gcsfs, …) by name where it is missing.
"""

import contextlib
import http.client
import io
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from typing import IO, cast

TIMEOUT = 60  # seconds without a byte
TRIES = 5
PAUSE = 0.5  # seconds before the second try, and twice as long before each one after it
PIECE = 2**20  # bytes read at once


@contextlib.contextmanager
def open_remote(url: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked if its name ends in .gz or .tgz. Raises `OSError` if it cannot be opened; what goes
    wrong later may be of any type, as fsspec's plug-ins differ."""
    scheme, _, rest = url.partition("://")
    with _open_http(url) if scheme in ("http", "https") else _open_other(url) as file:
        if rest.partition("?")[0].endswith((".gz", ".tgz")):
            yield io.BufferedReader(_Unpacked(file), PIECE)
        else:
            yield file


def _open_http(url: str) -> IO[bytes]:
    return io.BufferedReader(_Http(url), PIECE)


def _open_other(url: str) -> IO[bytes]:
    import fsspec

    try:
        return cast(IO[bytes], fsspec.open(url, "rb").open())
    except Exception as error:  # plug-ins raise errors of their own, such as for missing credentials
        raise OSError(str(error)) from error


def check_scheme(scheme: str) -> None:
    """`ValueError` for a scheme that nothing here can read, naming the package that could."""
    if scheme not in ("http", "https"):
        import fsspec

        try:
            fsspec.get_filesystem_class(scheme)
        except (ImportError, ValueError) as error:
            raise ValueError(f"path: {scheme}:// cannot be read here: {error}") from error


class _Http(io.RawIOBase):
    """A file read from a web server once, front to back; a broken connection is taken up again where it broke."""

    def __init__(self, url: str) -> None:
        self._url, self._position, self._end = url, 0, -1
        self._answer: IO[bytes] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]
        for attempt in range(TRIES):
            try:
                self._answer = self._answer or self._connect()
                count = self._answer.readinto(buffer)  # type: ignore[attr-defined]
                if count or self._position >= self._end:
                    self._position += count
                    return int(count)
                raise ConnectionError(f"the connection ended after {self._position:,} of {self._end:,} bytes")
            except urllib.error.HTTPError as error:
                error.close()
                if error.code < 500 and error.code != 429:
                    raise OSError(f"HTTP status {error.code} {error.reason}") from None
                failure: Exception = OSError(f"HTTP status {error.code} {error.reason}")
            except (OSError, http.client.HTTPException) as error:  # time-outs and broken connections are OSErrors too
                failure = error
            self._drop()
            if attempt + 1 < TRIES:
                time.sleep(PAUSE * 2**attempt)
        raise OSError(f"{failure}, {TRIES} times")

    def _connect(self) -> IO[bytes]:
        headers = {"Range": f"bytes={self._position}-"} if self._position else {}
        answer = urllib.request.urlopen(urllib.request.Request(self._url, headers=headers), timeout=TIMEOUT)
        start = self._position if answer.status == 206 else 0  # 200: the server begins again from the beginning
        length = answer.headers.get("Content-Length")
        self._end = start + int(length) if length else 0
        self._answer = cast(IO[bytes], answer)
        while start < self._position:
            piece = self._answer.read(min(self._position - start, PIECE))
            if not piece:
                raise ConnectionError("the connection ended")
            start += len(piece)
        return self._answer

    def _drop(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def close(self) -> None:
        self._drop()
        super().close()


class _Unpacked(io.RawIOBase):
    """A gzip file unpacked. Unlike Python's `GzipFile`, it gives all that lies before a cut."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._unpack = file, zlib.decompressobj(wbits=31)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]
        while True:
            if self._unpack.eof:  # another may follow, or padding
                piece = (self._unpack.unused_data or self._file.read(PIECE)).lstrip(b"\0")
                self._unpack = zlib.decompressobj(wbits=31) if piece else self._unpack
            else:
                piece = self._unpack.unconsumed_tail or self._file.read(PIECE)
            content = self._unpack.decompress(piece, len(buffer)) if piece else b""
            if content or not piece:
                buffer[: len(content)] = content
                return len(content)
