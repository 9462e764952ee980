import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pictura.config import load
from pictura.data import remote
from pictura.data import stream as module
from pictura.data.source import BadSample, Example, SourceConfig
from pictura.data.stream import Stream, StreamConfig
from tests.data.files import jpeg, tar, tar_bytes, write
from tests.data.web import Handler, serving

Served = tuple[str, Path, type[Handler]]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The address of a server on this machine, the folder that it serves, and its manners."""
    monkeypatch.setattr(remote, "PAUSE", 0.001)
    (tmp_path / "served").mkdir()
    with serving(tmp_path / "served") as (url, handler):
        yield url, tmp_path / "served", handler


def files(*numbers: int) -> list[tuple[str, bytes | str]]:
    return [file for n in numbers for file in [(f"{n}.jpg", jpeg(n)), (f"{n}.txt", f"number {n}")]]


def good(stream: Stream, epoch: int = 0, seed: int = 0, rank: int = 0, world: int = 1) -> list[Example]:
    found = list(stream.epoch(epoch, seed, rank, world))
    assert not [example for example in found if isinstance(example, BadSample)]
    return [example for example in found if not isinstance(example, BadSample)]


def test_from_a_web_server(server: Served) -> None:
    url, folder, handler = server
    for shard in range(4):
        tar(folder / f"s-{shard}.tar", files(*range(10 * shard, 10 * shard + 3)))
    stream = load(SourceConfig, {"kind": "stream", "path": f"{url}/s-{{0..3}}.tar", "examples": 12}).build()
    assert isinstance(stream, Stream)
    assert len(stream) == 12
    assert stream.provides == {"image", "captions"}
    examples = good(stream)
    assert {example["key"]: (example["image"], example["captions"]) for example in examples} == {
        f"{url}/s-{n // 10}.tar/{n}": (jpeg(n), [f"number {n}"])
        for shard in range(4)
        for n in range(10 * shard, 10 * shard + 3)
    }
    assert len(handler.requests) == 4
    assert sorted(stream.all_captions()) == sorted(f"number {10 * s + n}" for s in range(4) for n in range(3))


def test_order_is_a_function_of_seed_and_epoch_and_ranks_share_it(server: Served) -> None:
    url, folder, _ = server
    for shard in range(8):
        tar(folder / f"{shard}.tar", files(shard))
    stream = StreamConfig(path=f"{url}/{{0..7}}.tar").build()

    def order(*where: int) -> list[str]:
        return [example["captions"][0] for example in good(stream, *where)]

    first = order(0, 5)
    assert order(0, 5) == first
    assert order(1, 5) != first
    assert order(0, 6) != first
    assert sorted(order(1, 5)) == sorted(first)
    for world in (2, 3):
        shares = [order(0, 5, rank, world) for rank in range(world)]
        assert sorted(name for share in shares for name in share) == sorted(first)
        assert shares == [first[rank::world] for rank in range(world)]  # one example a tar


def test_a_server_that_stays_broken_is_one_bad_sample(server: Served) -> None:
    url, folder, handler = server
    tar(folder / "a.tar", files(*range(6)))
    handler.ranges, handler.limit = False, 8500
    *examples, bad = StreamConfig(path=f"{url}/a.tar").build().epoch(0, 0, 0, 1)
    assert [example["captions"] for example in examples] == [[f"number {n}"] for n in range(len(examples))]
    assert examples
    assert isinstance(bad, BadSample)
    assert bad.key == f"{url}/a.tar"
    assert "the connection ended" in bad.reason
    assert f"{remote.TRIES} times" in bad.reason


def test_a_tar_that_is_missing_is_one_bad_sample(server: Served) -> None:
    url, folder, handler = server
    tar(folder / "a.tar", files(1))
    stream = StreamConfig(path=f"{url}/{{a,none}}.tar").build()
    (bad,) = [example for example in stream.epoch(0, 0, 0, 1) if isinstance(example, BadSample)]
    assert str(bad).startswith(f"{url}/none.tar: cannot be read further: HTTP status 404")
    assert len(handler.requests) == 2  # it does not ask again for what is not there
    with pytest.raises(ValueError, match=r"no usable example in any tar; .*404"):
        list(StreamConfig(path=f"{url}/none.tar").build().epoch(0, 0, 0, 1))


def test_through_fsspec_and_packed(tmp_path: Path) -> None:
    write(tmp_path / "a.tar.gz", gzip.compress(tar_bytes(files(*range(6)))))
    pictures = [jpeg(n) for n in range(6)]
    assert [example["image"] for example in good(StreamConfig(path=f"file://{tmp_path}/a.tar.gz").build())] == pictures
    packed = (tmp_path / "a.tar.gz").read_bytes()
    write(tmp_path / "cut.tgz", packed[: len(packed) * 3 // 4])
    *examples, bad = StreamConfig(path=f"file://{tmp_path}/cut.tgz").build().epoch(0, 0, 0, 1)
    assert examples
    assert [example["image"] for example in examples] == pictures[: len(examples)]
    assert "the tar is cut short" in bad.reason
    missing = list(
        StreamConfig(path=[f"file://{tmp_path}/a.tar.gz", f"file://{tmp_path}/none.tar"]).build().epoch(0, 0, 0, 1)
    )
    (bad,) = [example for example in missing if isinstance(example, BadSample)]
    assert "none.tar: cannot be opened: " in str(bad)


def test_every_cut_is_one_bad_sample_and_costs_no_whole_example(tmp_path: Path) -> None:
    content = tar_bytes(files(0, 1, 2))
    whole = [content.index(b"number %d" % n) + 8 for n in range(3)]
    for cut in range(whole[0], whole[2] + 500, 250):
        stream = StreamConfig(path=f"file://{write(tmp_path / 'a.tar', content[:cut])}").build()
        *examples, bad = stream.epoch(0, 0, 0, 1)
        assert [example["image"] for example in examples] == [jpeg(n) for n, end in enumerate(whole) if end <= cut]
        assert isinstance(bad, BadSample)
        assert "the tar is cut short" in bad.reason
        assert "(at byte " in bad.reason


def test_bad_examples_take_their_own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [
        *files(1),
        ("2.jpg", jpeg()),
        *files(3, 1),
        ("4.txt", "x"),
        ("5.txt", "y"),
        ("5.jpg", b"x" * 5000),
        *files(6),
    ]
    monkeypatch.setattr(module, "MAX_BYTES", 4000)
    path = tar(tmp_path / "a.tar", members)
    found = list(StreamConfig(path=f"file://{path}").build().epoch(0, 0, 0, 1))
    said = [str(e).removeprefix(f"file://{path}/") if isinstance(e, BadSample) else e["captions"][0] for e in found]
    assert said == [
        "number 1",
        "2: no caption (txt or json.caption or json.captions or json.text)",
        "number 3",
        "1: a second example of this name; the first is used",
        "4: no picture among its parts (txt)",
        "5: its jpg has 5,000 bytes, above the limit of 4,000",
        "number 6",
    ]


def test_labels(tmp_path: Path) -> None:
    meta = json.dumps({"class": "dog", "caption": "a dog"})
    path = tar(tmp_path / "a.tar", [("1.jpg", jpeg()), ("1.json", meta), ("1.cls", "7")])
    words = StreamConfig(path=f"file://{path}", label="json.class", class_names=["cat", "dog"]).build()
    assert words.class_names == ("cat", "dog")
    assert (good(words)[0]["label"], good(words)[0]["captions"]) == (1, ["a dog"])
    numbers = StreamConfig(path=f"file://{path}", label="cls", captions=[]).build()
    assert numbers.provides == {"image", "label"}
    assert good(numbers)[0]["label"] == 7
    with pytest.raises(ValueError, match="label 'dog' is not a number, and there are no class_names"):
        list(StreamConfig(path=f"file://{path}", label="json.class").build().epoch(0, 0, 0, 1))


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"'a.tar' is not an address .* use `kind: shards`"):
        StreamConfig(path="a.tar").build()
    with pytest.raises(ValueError, match="names no tar"):
        StreamConfig(path=[]).build()
    with pytest.raises(ValueError, match="nowhere:// cannot be read here"):
        StreamConfig(path="nowhere://a.tar").build()
    stream = StreamConfig(path="http://127.0.0.1:9/a.tar").build()
    with pytest.raises(ValueError, match="examples: say how many"):
        len(stream)
    with pytest.raises(ValueError, match="use `kind: shards`"):
        stream[0]
    with pytest.raises(ValueError, match="1 tars cannot be shared among 2 processes"):
        next(stream.epoch(0, 0, 0, 2))
