"""What a run would take."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from pictura import facts
from pictura.config import sized
from pictura.data.stream import StreamConfig
from pictura.training.loop import Trainer
from tests.tiny import tiny

WRITE = ".venv/bin/python -m tests.test_facts"


def test_a_stream_that_does_not_know_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "known_length", lambda source: None)
    planned = facts.plan(tiny())
    assert (planned["examples"], planned["epochs"]) == (None, None)
    assert ("not known", "examples in the data") in facts.in_words(planned)


def test_the_length_of_a_stream() -> None:
    urls = "https://nowhere.invalid/a.tar"
    assert facts.known_length(StreamConfig(path=urls).build()) is None
    assert facts.known_length(StreamConfig(path=urls, examples=7).build()) == 7


def test_what_does_not_fit_into_memory_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "_advance", full)
    with pytest.raises(ValueError, match=r"too small for loader\.batch_size 16; set training\.micro_batch"):
        facts.plan(tiny())


def test_waiting_for_batches_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch in four is slow, as with four workers, and one step in eight; every step has a batch of its own."""
    now, given = 0.0, list[int]()

    class Slow:
        device = torch.device("cpu")

        def _advance(self, batch: int) -> None:
            nonlocal now
            given.append(batch)
            now += 50.0 if batch % 8 == 0 else 1.0

    def bursts() -> Iterator[Any]:
        nonlocal now
        for number in count():
            now += 8.0 if number % 4 == 0 else 0.0
            yield number

    monkeypatch.setattr(facts.time, "perf_counter", lambda: now)
    monkeypatch.setattr(facts, "LONGEST", 1000.0)
    trainer: Any = Slow()
    assert facts.seconds_per_step(trainer, bursts(), skip=5) == pytest.approx(1 + 2)
    assert given == list(range(9))


def test_what_there_is_to_choose_from_names_every_paper() -> None:
    rows = facts.models()
    assert {"clip RN50x64", "vit R50+B/16", "mixer H/14", "resnet 50", "clip_resnet RN50"} <= rows.keys()
    assert all(row["source"] for row in rows.values())
    assert rows["vit B/16"]["source"] == "Dosovitskiy et al. 2021"
    assert rows["resnet 50"]["source"] == "He et al. 2016"
    assert rows["mixer B/16"]["gflops"] == pytest.approx(25.2, abs=0.05)  # measured with timm's own, 2 x its MACs
    assert rows["resnet 50"]["parameters"] == 25_557_032 - 2048 * 1000 - 1000, "torchvision's, without the head"


def test_the_counts_that_are_kept_are_those_that_are_counted() -> None:
    """Of one size of each kind here; `python -m tests.test_facts` counts all."""
    known = json.loads(facts.COUNTS.read_text())
    assert known.keys() == facts.named().keys(), f"not as listed: {WRITE}"
    for name in ("clip ViT-B/32", "clip_resnet RN50", "mixer S/32", "resnet 18", "vit Ti/16", "vit R26+S/32"):
        cls, size = facts.named()[name]
        parameters, gflops = facts.counted(sized(cls, size))
        assert known[name] == [parameters, pytest.approx(gflops, rel=1e-9)], f"not as listed: {WRITE}"


if __name__ == "__main__":
    kept = {name: facts.counted(sized(cls, size)) for name, (cls, size) in facts.named().items()}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(count)}" for name, count in kept.items())
    Path(str(facts.COUNTS)).write_text(f"{{\n{lines}\n}}\n")
