"""The samples that could not be used: each counted once, named in the log, in a file of the run and in its report, with
a limit on their share.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

SHOWN = 5  # examples in an error message
SMALL = 1000  # a stream's share is not judged on fewer samples than this


class BadSamples:
    """Bad samples by key. `total`: how many samples there are, bad ones included; None for a stream, which reports what
    it `saw`. `world`: how many processes read them, each its part.

    Above `max_bad` (a share, 0 to 1) `add` raises `ValueError`, naming the first few and their reasons.
    """

    def __init__(self, total: int | None = None, max_bad: float = 1.0, world: int = 1) -> None:
        self.total = total
        self.max_bad = max_bad
        self.world = world
        self.seen = 0
        self._reasons: dict[str, str] = {}
        self._of_all = 0  # of these, how many are known of all samples, not of this process's part
        self._file: Path | None = None

    def __len__(self) -> int:
        return len(self._reasons)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.rows())

    @property
    def share(self) -> float:
        """Bad samples over all samples, in [0, 1]; with several processes an estimate, from this one's part."""
        if self.total is None:
            part = max(self.seen, SMALL)
            whole = part * self.world
        else:  # epoch after epoch a process reads other parts: in the end it has met nearly all
            whole = self.total
            part = min(whole, max(whole // self.world, self.seen))
        found = len(self._reasons) - self._of_all
        return min(1.0, self._of_all / max(whole, 1) + found / max(part, 1))

    def saw(self, count: int) -> None:
        """`count` more samples were met."""
        self.seen += count

    def add(self, key: str, reason: str, *, of_all: bool = False) -> None:
        """Count the sample `key`, unless it is counted already. ValueError when the share is now above the limit.

        of_all: it was found among all samples, as every process does that opens the data, not in this one's part.
        """
        if key in self._reasons:
            return
        self._reasons[key] = reason
        self._of_all += of_all
        log.warning("bad sample %s: %s", key, reason)
        if self._file is not None:
            self._write([(key, reason)])
        if self.share > self.max_bad:
            raise ValueError(self._refusal())

    def keep(self, file: Path) -> None:
        """From here on, write each bad sample to `file`, a JSON object a line; those that it holds are counted first.

        Several processes may write the same file. A line that was cut short when a run was killed is passed over.
        """
        kept = _read(file)
        fresh = [row for row in self.rows() if row[0] not in kept]
        new = {key: reason for key, reason in kept.items() if key not in self._reasons}
        self._reasons |= new
        self._of_all += len(new)
        self._file = file
        self._write(fresh)

    def rows(self) -> list[tuple[str, str]]:
        """(key, reason), in the order in which they were met."""
        return list(self._reasons.items())

    def _write(self, rows: list[tuple[str, str]]) -> None:
        assert self._file is not None
        if rows:
            lines = "".join(json.dumps({"sample": key, "reason": reason}) + "\n" for key, reason in rows)
            with self._file.open("a", encoding="utf-8") as file:  # one write: lines of several processes do not mix
                file.write(lines)

    def _refusal(self) -> str:
        named = "; ".join(f"{key}: {reason}" for key, reason in self.rows()[:SHOWN])
        more = f"; and {len(self) - SHOWN} more" if len(self) > SHOWN else ""
        of = self.seen if self.total is None else round(len(self) / self.share)
        return (
            f"{len(self):,} of {of:,} samples cannot be used ({self.share:.2%}, above loader.max_bad = "
            f"{self.max_bad:.2%}): {named}{more}. Mend or remove them, or raise loader.max_bad"
        )


def _read(file: Path) -> dict[str, str]:
    """Sample -> reason, of what `keep` has written."""
    found: dict[str, str] = {}
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found.setdefault(row["sample"], row["reason"])
    return found
