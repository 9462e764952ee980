"""One file of the Hugging Face hub into its cache, taken up where it broke off and checked before it counts.

The cache is huggingface_hub's own, laid out as it documents ("Understand caching"): `blobs/HASH`, links to these in
`snapshots/COMMIT/`, and `refs/REVISION`. So what transformers or `hf download` has brought is not brought again, nor
the other way round. Two things differ: a download that was cut off, even by a kill, goes on where it stopped, while
huggingface_hub 2 begins anew in each call; and a file takes its name only once its hash is the one that the hub lists:
sha256 of a large file, git's sha1 of a small one.
"""

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from pictura.config.messages import explain
from pictura.output.files import write_text

DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class File:
    """A file as the hub lists it. size: in bytes, where it says so."""

    name: str
    size: int | None
    digest: str


@dataclass(frozen=True)
class Repository:
    """A model of the hub, and its place in the cache. name: as it was asked for. revision: None is the newest."""

    name: str
    repo: str
    revision: str | None
    endpoint: str
    folder: Path

    def snapshot(self, commit: str) -> Path:
        return self.folder / "snapshots" / commit

    def bring(self, file: File, commit: str) -> None:
        """A file into the snapshot of `commit`, unless it is there."""
        from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

        link, blob = self.snapshot(commit) / file.name, self.folder / "blobs" / file.digest
        if whole(link, file.size):
            return
        if not DIGEST.fullmatch(file.digest):
            raise ValueError(f"{self.name}: {self.endpoint} lists no hash for {file.name}, so it could not be checked")
        lock = self.folder.parent / ".locks" / self.folder.name / f"{file.digest}.lock"  # huggingface_hub's own
        for place in (link, blob, lock):
            place.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            if not whole(blob, file.size):
                self._receive(file, commit, blob)
            if not whole(link, file.size):
                link.unlink(missing_ok=True)
                _link(link, blob)

    def _receive(self, file: File, commit: str, blob: Path) -> None:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        url = hf_hub_url(self.repo, file.name, revision=commit, endpoint=self.endpoint)
        # unpacked: a packed answer cannot be taken up in its middle
        headers = build_hf_headers(library_name="pictura") | {"Accept-Encoding": "identity"}
        part = blob.with_name(f"{blob.name}.pictura.incomplete")
        damaged = 0
        while damaged < 2:
            with part.open("ab") as out:
                before = out.tell()
                try:
                    http_get(
                        url,
                        out,
                        headers=headers,
                        resume_size=before,
                        expected_size=file.size,
                        displayed_filename=file.name,
                    )
                except failures() as error:
                    out.flush()
                    kept = part.stat().st_size
                    if before < kept < (file.size or 0):
                        continue  # as long as something comes
                    self._broken(error, file, kept)
                out.flush()
                os.fsync(out.fileno())
            if _digest(part, len(file.digest)) == file.digest:
                os.replace(part, blob)
                return
            part.unlink()
            damaged += 1
        raise ValueError(
            f"{self.name}: {file.name} came damaged twice: its hash is not {file.digest[:12]}…, and it was not kept. "
            f"Something between here and {self.endpoint} changes it; try again later, or from another network"
        )

    def _broken(self, error: Exception, file: File, kept: int) -> None:
        """Raises what ended a download; returns where all of it may be there, which its hash will say."""
        if status_of(error) == 416:
            return  # nothing follows what is here, be it the whole or too much
        if isinstance(error, OSError) and error.errno and not isinstance(error, (ConnectionError, TimeoutError)):
            raise error  # the disk's
        if refusal := self.refusal(error):
            raise ValueError(refusal) from error
        if file.size is None or kept < file.size:
            raise ValueError(
                f"{self.name}: the download of {file.name} broke off ({self.silence(error)}); {kept:,} of "
                f"{file.size or 0:,} bytes are kept, and the same command goes on from there"
            ) from error

    def refusal(self, error: Exception) -> str | None:
        """What the hub has against the request; None where it was not reached, or has trouble of its own."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        page = f"{self.endpoint}/{self.repo}"
        if isinstance(error, GatedRepoError):
            return f"{self.name}: gated; agree to its terms at {page}, then `hf auth login` here"
        if isinstance(error, RevisionNotFoundError):
            return f"{self.name}: {page} has no revision {self.revision or 'main'}; without @ it is the newest"
        if isinstance(error, RepositoryNotFoundError) or status_of(error) == 404:
            return f"{self.name}: there is no {page}, or it is private, and then needs `hf auth login` here first"
        if status_of(error) in (401, 403):
            return f"{self.name}: {page} refuses ({status_of(error)}); `hf auth login` with a token that may read it"
        return None

    def silence(self, error: Exception) -> str:
        """Why there was no answer."""
        from huggingface_hub.errors import OfflineModeIsEnabled

        if isinstance(error, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set"
        if status := status_of(error):
            return f"{self.endpoint} answered with {status}"
        return f"{self.endpoint} cannot be reached: {explain(error)}"


def failures() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises when a request fails: errors of requests, httpx or httpx2, by its version."""
    from huggingface_hub.errors import HfHubHTTPError

    return OSError, next(one for one in HfHubHTTPError.__mro__ if one.__name__ == "HTTPError")


def status_of(error: Exception) -> int:
    """The HTTP status that an error tells of, or 0."""
    return int(getattr(getattr(error, "response", None), "status_code", 0))


def whole(path: Path, size: int | None) -> bool:
    """Whether a file is there, in its size."""
    return path.is_file() and size in (None, path.stat().st_size)


def write(path: Path, text: str) -> None:
    """A note for later, which a cache that is read-only does without; a reader finds the old one or the new one."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)


def _link(link: Path, blob: Path) -> None:
    try:
        link.symlink_to(os.path.relpath(blob, link.parent))
    except FileExistsError:
        return  # somebody else was faster
    except OSError:  # a disk without links: the file itself, as huggingface_hub does there
        os.replace(blob, link)


def _digest(path: Path, length: int) -> str:
    """sha256 where `length` is 64; else what git calls a file by (`git hash-object`)."""
    git = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        return hashlib.file_digest(file, hashlib.sha256 if length == 64 else lambda: git).hexdigest()
