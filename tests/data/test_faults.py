"""Bad samples: counted once, named, limited."""

import json
import logging
from pathlib import Path

import pytest

from pictura.data.faults import BadSamples


def test_each_key_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    bad = BadSamples(total=10)
    with caplog.at_level(logging.WARNING):
        bad.add("a.jpg", "empty file")
        bad.add("b.jpg", "no caption")
        bad.add("a.jpg", "empty file")
    assert len(bad) == 2
    assert bad.share == 0.2
    assert bad.rows() == list(bad) == [("a.jpg", "empty file"), ("b.jpg", "no caption")]
    assert [record.getMessage() for record in caplog.records] == [
        "bad sample a.jpg: empty file",
        "bad sample b.jpg: no caption",
    ]


def test_the_limit_is_a_share_that_may_be_reached_but_not_passed() -> None:
    bad = BadSamples(total=200, max_bad=0.01)
    bad.add("a", "torn")
    bad.add("b", "torn")
    bad.add("b", "torn")
    with pytest.raises(
        ValueError, match=r"3 of 200 samples cannot be used \(1\.50%.*max_bad.*a: torn; b: torn; c: cut"
    ):
        bad.add("c", "cut")


def test_the_message_names_a_few_of_many() -> None:
    bad = BadSamples(total=10, max_bad=0.75)
    for name in "abcdefg":
        bad.add(name, "torn")
    with pytest.raises(ValueError, match="e: torn; and 3 more"):
        bad.add("h", "torn")


def test_without_a_limit_nothing_is_raised() -> None:
    bad = BadSamples()
    for number in range(2000):
        bad.add(str(number), "torn")
    assert bad.share == 1.0


def test_a_stream_is_judged_by_what_was_seen() -> None:
    bad = BadSamples(max_bad=0.01)
    bad.saw(20)
    for number in range(10):  # half of what was seen, but of a thousand at least
        bad.add(str(number), "torn")
    bad.saw(1980)
    for number in range(10, 20):
        bad.add(str(number), "torn")
    assert bad.share == 0.01
    with pytest.raises(ValueError, match="21 of 2,000"):
        bad.add("20", "torn")


def test_nothing_at_all_is_a_share_of_zero() -> None:
    assert BadSamples(total=0).share == 0


def test_a_process_is_judged_by_its_part() -> None:
    """Of 200 samples two processes read 100 each in an epoch, and in the next epochs others."""
    bad = BadSamples(total=200, max_bad=0.01, world=2)
    bad.add("a", "torn")
    assert bad.share == 0.01
    bad.saw(200)  # by now it may have met all of them
    bad.add("b", "torn")
    assert bad.share == 0.01
    with pytest.raises(ValueError, match=r"3 of 200 samples cannot be used \(1\.50%"):
        bad.add("c", "torn")
    early = BadSamples(total=200, max_bad=0.01, world=2)
    early.add("a", "torn")
    with pytest.raises(ValueError, match=r"2 of 100 samples cannot be used \(2\.00%"):
        early.add("b", "torn")


def test_what_every_process_finds_is_a_share_of_all() -> None:
    bad = BadSamples(total=200, max_bad=0.01, world=2)
    bad.add("a", "torn", of_all=True)
    bad.add("b", "torn", of_all=True)
    assert bad.share == 0.01


def test_they_are_kept_in_a_file_and_known_after_a_resume(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "bad.jsonl"
    bad = BadSamples(total=10)
    bad.keep(file)
    assert not file.exists(), "nothing is bad yet"
    bad.add("a", "torn \u00e9\n")
    bad.add("a", "again")
    bad.add("b", "empty")
    wanted = [("a", "torn \u00e9\n"), ("b", "empty")]
    with file.open("a") as lines:
        lines.write('{"sample": "cut sh')
    caplog.clear()
    resumed = BadSamples(total=10, max_bad=0.2)
    resumed.keep(file)
    assert resumed.rows() == wanted
    resumed.add("b", "empty")
    assert (len(resumed), resumed.share, caplog.records) == (2, 0.2, [])
    with pytest.raises(ValueError, match="3 of 10"):
        resumed.add("c", "torn")


def test_what_was_known_before_the_file_is_in_it(tmp_path: Path) -> None:
    bad = BadSamples(total=10)
    bad.add("a", "torn", of_all=True)
    for _ in range(2):
        bad.keep(tmp_path / "bad.jsonl")
    lines = (tmp_path / "bad.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"sample": "a", "reason": "torn"}]
