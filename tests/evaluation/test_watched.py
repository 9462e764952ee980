import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest

import pictura
from pictura.evaluation.watched import watched


def test_what_takes_long_shows_how_far_it_is(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing in the first two seconds; then lines, for pictures and for texts, and nothing afterwards."""
    embedder = pictura.load(trained / "model").embedder
    embedder.batch_size = 2
    texts = [" ".join(["star"] * n) for n in range(1, 12)]
    with watched(embedder):
        embedder.texts(texts)
    assert capsys.readouterr().err == ""
    clock = count(0)
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))  # every look at it takes a second
    with watched(embedder):
        embedder.texts(texts)
        embedder.images([np.zeros((16, 16, 3), np.uint8)] * 12)
    told = capsys.readouterr().err
    assert "texts 11/11" in told and "pictures 12/12" in told
    embedder.texts(texts)
    assert capsys.readouterr().err == ""


def test_an_error_ends_the_display(trained: Path) -> None:
    embedder = pictura.load(trained / "model").embedder
    with pytest.raises(KeyError), watched(embedder):
        raise KeyError("x")
    assert embedder.progress is None
