"""bf16, whatever this machine has."""

import pytest

from pictura.training import precision


@pytest.fixture(autouse=True)
def bf16_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run in bf16 does is tested on CPUs, too, that only imitate it."""
    monkeypatch.setattr(precision, "runs_here", lambda: True)
