"""The part of the Hugging Face hub that a download needs, on this machine, with faults to choose."""

import contextlib
import gzip
import hashlib
import http.server
import json
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

REPO = "openai/clip"


@dataclass
class Hub:
    """One repository, `REPO`. What is set while it runs counts from the next request on."""

    files: dict[str, bytes]
    commit: str = "a" * 40
    refused: tuple[int, str] | None = None  # a status, and what X-Error-Code says
    refused_files: tuple[int, str] | None = None  # the same, but the list of files can be had
    damaged: dict[str, int] = field(default_factory=dict)  # how often a file comes with one byte changed
    cut: list[int] = field(default_factory=list)  # after how many bytes each of the next answers breaks off
    stall: bool = False  # instead of breaking off, nothing more comes
    reset: bool = False  # it breaks off as when somebody pulls the plug of a router
    ranges: bool = True  # whether it knows byte ranges
    sizes: bool = True  # whether it lists the sizes of files
    requests: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)
    """Method, path, Range and Authorization of each."""
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)

    def gets(self, file: str) -> list[str | None]:
        """The Range of each GET of a file's content."""
        ends = f"/{file}", f"/{digest(file, self.files[file])}"
        found = [one for one in self.requests if one[0] == "GET" and one[1].endswith(ends)]
        return [one[2] for one in found if not (is_large(file) and "/resolve/" in one[1])]


def is_large(file: str) -> bool:
    """Whether it lies where the hub keeps large files, on a server of its own."""
    return not file.endswith((".json", ".txt", ".md"))


def digest(file: str, content: bytes) -> str:
    if is_large(file):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path, self.headers["Range"], self.headers["Authorization"]))
        refused = hub.refused or (hub.refused_files if "/resolve/" in path else None)
        if path.startswith("/cdn/"):
            (file,) = [one for one in hub.files if digest(one, hub.files[one]) == path[5:]]
            self.content(file)
        elif refused:
            self.answer(refused[0], b"{}", {"X-Error-Code": refused[1]} if refused[1] else {})
        elif path.startswith(f"/api/models/{REPO}/"):
            kind, _, revision = path.removeprefix(f"/api/models/{REPO}/").partition("/")
            if revision not in ("main", "v1", hub.commit):
                self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            else:
                found = self.info() if kind == "revision" else self.tree()
                self.answer(200, json.dumps(found).encode(), {"Content-Type": "application/json"})
        elif re.match(rf"/{REPO}/resolve/(main|v1|{hub.commit})/", path):
            self.resolve(path.split("/", 5)[-1])
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def info(self) -> dict[str, Any]:
        siblings = []
        for file, content in self.hub.files.items():
            size = len(content) if self.hub.sizes else None
            one: dict[str, Any] = {"rfilename": file, "size": size, "blobId": "f" * 40}
            if is_large(file):
                one["lfs"] = {"sha256": digest(file, content), "size": len(content), "pointerSize": 130}
            else:
                one["blobId"] = digest(file, content)
            siblings.append(one)
        return {"id": REPO, "modelId": REPO, "sha": self.hub.commit, "siblings": siblings, "tags": [], "private": False}

    def tree(self) -> list[dict[str, Any]]:
        found = []
        for file, content in self.hub.files.items():
            one: dict[str, Any] = {"type": "file", "path": file, "size": len(content), "oid": "f" * 40}
            if is_large(file):
                one["lfs"] = {"oid": digest(file, content), "size": len(content), "pointerSize": 130}
            else:
                one["oid"] = digest(file, content)
            found.append(one)
        return found

    def resolve(self, file: str) -> None:
        if file not in self.hub.files:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        content, headers = self.hub.files[file], {"X-Repo-Commit": self.hub.commit}
        if not is_large(file):
            self.content(file, headers | {"ETag": f'"{digest(file, content)}"'})
            return
        elsewhere = self.hub.url.replace("127.0.0.1", "localhost")  # another host, as far as a client can tell
        headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{digest(file, content)}"'}
        self.answer(302, b"", headers | {"Location": f"{elsewhere}/cdn/{digest(file, content)}"})

    def content(self, file: str, headers: dict[str, str] | None = None) -> None:
        hub, content = self.hub, self.hub.files[file]
        if hub.damaged.get(file):
            hub.damaged[file] -= self.command == "GET"
            content = bytes([content[0] ^ 1]) + content[1:]
        given = self.headers["Range"] if hub.ranges else None
        start = int(given.removeprefix("bytes=").split("-")[0]) if given else 0
        if start and start >= len(content):
            self.answer(416, b"", {})
            return
        if "gzip" in self.headers["Accept-Encoding"]:  # as the hub does with texts; then a Range counts packed bytes
            packed = gzip.compress(content, 1, mtime=0)
            self.answer(206 if start else 200, packed[start:], (headers or {}) | {"Content-Encoding": "gzip"})
            return
        more = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        self.answer(206 if start else 200, content[start:], (headers or {}) | more)

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = self.hub.cut.pop(0) if self.hub.cut and "/cdn/" in self.path else None
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content[:limit])
            if limit is not None:
                self.wfile.flush()
                self.close_connection = True
                if self.hub.stall:
                    self.hub.released.wait(60)
                if self.hub.reset:
                    time.sleep(0.3)  # what was sent shall arrive
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    os.close(self.connection.detach())

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Hub]:
    hub = Hub(files)
    own = type("Own", (Handler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), own) as running:
        hub.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hub
        finally:
            hub.released.set()
            running.shutdown()
            thread.join()
