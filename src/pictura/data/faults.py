"""The samples that could not be used: each counted once, named in the log and in the table at the end of a run, with a
limit on their share.
"""

import logging
from collections.abc import Iterator

log = logging.getLogger(__name__)

SHOWN = 5  # examples in an error message
SMALL = 1000  # a stream's share is not judged on fewer samples than this


class BadSamples:
    """Bad samples by key. `total`: how many samples there are, bad ones included; None for a stream, which reports what
    it `saw`.

    Above `max_bad` (a share, 0 to 1) `add` raises `ValueError`, naming the first few and their reasons.
    """

    def __init__(self, total: int | None = None, max_bad: float = 1.0) -> None:
        self.total = total
        self.max_bad = max_bad
        self.seen = 0
        self._reasons: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._reasons)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.rows())

    @property
    def share(self) -> float:
        """Bad samples over all samples, in [0, 1]."""
        total = max(self.seen, SMALL) if self.total is None else self.total
        return len(self._reasons) / max(total, len(self._reasons), 1)

    def saw(self, count: int) -> None:
        """A stream met `count` more samples."""
        self.seen += count

    def add(self, key: str, reason: str) -> None:
        """Count the sample `key`, unless it is counted already. ValueError when the share is now above the limit."""
        if key in self._reasons:
            return
        self._reasons[key] = reason
        log.warning("bad sample %s: %s", key, reason)
        if self.share > self.max_bad:
            raise ValueError(self._refusal())

    def rows(self) -> list[tuple[str, str]]:
        """(key, reason), in the order in which they were met."""
        return list(self._reasons.items())

    def _refusal(self) -> str:
        named = "; ".join(f"{key}: {reason}" for key, reason in self.rows()[:SHOWN])
        more = f"; and {len(self) - SHOWN} more" if len(self) > SHOWN else ""
        of = f"{len(self):,} of {self.total or self.seen:,} samples"
        return (
            f"{of} cannot be used ({self.share:.2%}, above loader.max_bad = {self.max_bad:.2%}): {named}{more}. "
            "Mend or remove them, or raise loader.max_bad"
        )
