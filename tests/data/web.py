"""A web server on this machine, with manners to choose, for the tests of `data/`."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder. Knows byte ranges if `ranges`; fails `failures` times; breaks a connection off after `limit`
    bytes, which grows by `growth` each time."""

    protocol_version = "HTTP/1.1"
    requests: list[tuple[str, str | None]]
    ranges = True
    failures = growth = 0
    limit = 10**9

    def do_GET(self) -> None:
        self.requests.append((self.path, self.headers["Range"]))
        if type(self).failures > 0:
            type(self).failures -= 1
            self.send_error(503)
            return
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        start = int(self.headers["Range"][6:-1]) if self.headers["Range"] and self.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: self.limit])
        if len(content) - start > self.limit:
            self.close_connection = True
            type(self).limit += self.growth

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[str, type[Handler]]]:
    """The address of the server, and its class, where its manners are set and its requests kept."""

    class Own(Handler):
        pass

    Own.requests = []

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Own(*a, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}", Own
        finally:
            running.shutdown()
            thread.join()
