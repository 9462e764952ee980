import gzip
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pictura.data import remote
from pictura.data.remote import check_scheme, open_remote
from tests.data.files import write
from tests.data.web import Handler, serving

CONTENT = random.Random(0).randbytes(100_000)
Served = tuple[str, Path, type[Handler]]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The address of a file on a web server, the file, and the server's manners."""
    monkeypatch.setattr(remote, "PAUSE", 0.001)
    monkeypatch.setattr(remote, "PIECE", 5000)
    with serving(tmp_path) as (url, handler):
        yield f"{url}/file", write(tmp_path / "file", CONTENT), handler


def read(url: str, size: int = 700) -> bytes:
    with open_remote(url) as file:
        return b"".join(iter(lambda: file.read(size), b""))


def test_a_file_is_read_with_one_request(server: Served) -> None:
    url, path, handler = server
    assert read(url) == read(url, 10**9) == CONTENT
    assert handler.requests == [("/file", None)] * 2
    assert read(f"file://{path}") == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_taken_up_where_it_broke(server: Served, ranges: bool) -> None:
    url, _, handler = server
    handler.ranges, handler.limit, handler.growth = ranges, 30_000, 0 if ranges else 30_000
    assert read(url) == CONTENT
    assert [start for _, start in handler.requests] == [None, "bytes=30000-", "bytes=60000-", "bytes=90000-"]


def test_a_server_in_trouble_is_asked_again(server: Served) -> None:
    url, _, handler = server
    handler.failures = remote.TRIES - 1
    assert read(url) == CONTENT
    handler.failures = remote.TRIES
    with pytest.raises(OSError, match="HTTP status 503 Service Unavailable, 5 times"):
        read(url)


def test_what_is_not_there_is_not_asked_again(server: Served) -> None:
    url, _, handler = server
    with pytest.raises(OSError, match="HTTP status 404"):
        read(f"{url}-not")
    assert len(handler.requests) == 1
    with pytest.raises(OSError, match="none"), open_remote("file:///none"):
        pass


def test_a_connection_that_breaks_at_the_same_place_each_time(server: Served) -> None:
    url, _, handler = server
    handler.ranges, handler.limit = False, 30_000
    with open_remote(url) as file:
        assert file.read(30_000) == CONTENT[:30_000]
        with pytest.raises(OSError, match=r"the connection ended.*5 times"):
            file.read(1)


def test_no_server_and_a_silent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TIMEOUT", 0.05)
    monkeypatch.setattr(remote, "PAUSE", 0.001)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/a.tar"
        with pytest.raises(OSError, match="timed out, 5 times"):
            read(address)
    with pytest.raises(OSError, match=r"refused.*5 times"):
        read(address)


def test_unpacking(tmp_path: Path) -> None:
    packed = gzip.compress(CONTENT[:60_000]) + gzip.compress(CONTENT[60_000:]) + b"\0" * 100
    for name in ("a.tar.gz", "a.tgz", "a.tgz"):
        assert read(f"file://{write(tmp_path / name, packed)}") == CONTENT
    bomb = gzip.compress(b"\0" * 10**7)
    with open_remote(f"file://{write(tmp_path / 'b.gz', bomb)}") as file:
        assert file.read(100) == b"\0" * 100
    for cut in (0, 5, 1000, 70_000):
        found = read(f"file://{write(tmp_path / 'c.gz', packed[:cut])}")
        assert CONTENT.startswith(found)
        assert len(found) >= cut - 6000 or cut < 6000


def test_schemes() -> None:
    for known in ("http", "https", "file", "memory"):
        check_scheme(known)
    with pytest.raises(ValueError, match="nowhere:// cannot be read here"):
        check_scheme("nowhere")
