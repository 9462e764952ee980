import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pictura.config import load
from pictura.data import shards as module
from pictura.data.decode import decode
from pictura.data.shards import ShardsConfig
from pictura.data.source import BadSample, Example, Source, SourceConfig
from tests.data.files import jpeg, shared, tar, tar_bytes, write


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def files(*numbers: int) -> list[tuple[str, bytes | str]]:
    return [file for n in numbers for file in [(f"{n}.jpg", jpeg(n)), (f"{n}.txt", f"number {n}")]]


def contents(source: Source) -> list[Example]:
    return [source[index] for index in range(len(source))]


def test_examples_of_several_tars(tmp_path: Path) -> None:
    for shard in range(3):
        tar(tmp_path / f"s-{shard:02}.tar", files(*range(shard + 1)))
    source = load(SourceConfig, {"kind": "shards", "path": f"{tmp_path}/s-{{00..02}}.tar"}).build()
    assert source.provides == {"image", "captions"}
    expected = [
        {"key": f"{tmp_path}/s-{shard:02}.tar/{n}", "image": jpeg(n), "captions": [f"number {n}"]}
        for shard in range(3)
        for n in range(shard + 1)
    ]
    assert contents(source) == expected  # the same keys in two tars are two examples
    assert source[-1] == expected[-1]
    assert list(source.all_captions()) == [f"number {n}" for n in (0, 0, 1, 0, 1, 2)]
    assert not source.bad
    with pytest.raises(IndexError):
        source[6]
    again = load(SourceConfig, {"kind": "shards", "path": [f"{tmp_path}/s-01.tar", f"{tmp_path}/s-00.tar"]}).build()
    assert [Path(example["key"]).parent.name for example in contents(again)] == ["s-01.tar", "s-01.tar", "s-00.tar"]


def test_the_second_start_gives_the_same(tmp_path: Path) -> None:
    path = str(tar(tmp_path / "a.tar", [*files(1, 2, 1), ("3.txt", "no picture"), ("1.cls", "x"), ("2.cls", "y")]))
    first, second = (ShardsConfig(path=path).build() for _ in range(2))
    assert contents(first) == contents(second)
    assert list(map(str, first.bad)) == list(map(str, second.bad))
    assert first.class_names == second.class_names == ("x", "y")


def test_json_and_other_parts(tmp_path: Path) -> None:
    meta = {"caption": "from json", "more": {"text": ["a", "b"]}, "class": "n02", "y": 3}
    path = str(
        tar(
            tmp_path / "a.tar",
            [("k.PNG", jpeg()), ("k.json", json.dumps(meta)), ("k.alt.jpg", jpeg(1)), ("k.txt", "t")],
        )
    )
    assert ShardsConfig(path=path).build()[0]["captions"] == ["t"]
    named = ShardsConfig(
        path=path, image=["alt.jpg"], captions=["json.caption", "json.more.text"], label="json.class"
    ).build()
    assert named[0] == {"key": f"{path}/k", "image": jpeg(1), "captions": ["from json", "a", "b"], "label": 0}
    assert named.class_names == ("n02",)
    without = ShardsConfig(path=path, captions=[], label="json.y").build()
    assert without.provides == {"image", "label"}
    assert without[0]["label"] == 3
    words = write(tmp_path / "words.json", json.dumps({"n01": ["dog"], "n02": ["tabby cat", "cat"]}))
    named = ShardsConfig(path=path, label="json.class", class_names=words).build()
    assert (named.class_names, named[0]["label"]) == (("dog", "tabby cat"), 1)


def test_class_labels(tmp_path: Path) -> None:
    both = [
        ("1.jpg", jpeg()),
        ("1.cls", "dog"),
        ("2.jpg", jpeg()),
        ("2.cls", " cat\n"),
        ("3.jpg", jpeg()),
        ("4.jpg", jpeg()),
        ("4.cls", ""),
    ]
    source = ShardsConfig(path=str(tar(tmp_path / "a.tar", both))).build()
    assert source.provides == {"image", "label"}
    assert source.class_names == ("cat", "dog")
    assert [source[0]["label"], source[1]["label"]] == [1, 0]
    for index in (2, 3):
        with pytest.raises(BadSample, match="no label"):
            source[index]
    numbers = ShardsConfig(path=str(tar(tmp_path / "b.tar", [("1.jpg", jpeg()), ("1.cls", "17")]))).build()
    assert numbers[0]["label"] == 17
    assert numbers.class_names == () and numbers.least_classes == 18


def test_what_lacks_a_part_is_named(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "a.tar",
        [*files(1), ("2.jpg", jpeg()), ("3.txt", "x"), ("4.bin", "x"), *files(5), ("6.jpg", jpeg()), ("6.txt", "\n")],
    )
    source = ShardsConfig(path=str(path)).build()
    assert [str(bad).removeprefix(f"{path}/") for bad in source.bad] == [
        "2: no caption among its parts (jpg)",
        "3: no picture among its parts (txt)",
        "4: no picture among its parts (bin)",
    ]
    assert [source[index]["captions"] for index in range(2)] == [["number 1"], ["number 5"]]
    with pytest.raises(BadSample, match=r"a\.tar/6: empty caption"):
        source[2]


@pytest.mark.parametrize(("keep", "whole"), [(0.2, 1), (0.5, 2), (0.7, 3)])
def test_a_tar_cut_in_the_middle(tmp_path: Path, keep: float, whole: int) -> None:
    picture = b"\xff\xd8" + b"x" * 1500
    content = tar_bytes([file for n in range(4) for file in [(f"{n}.jpg", picture), (f"{n}.txt", f"{n}")]])
    content = content[: 4 * 3072 + 512]
    path = write(tmp_path / "a.tar", content[: int(len(content) * keep) + 700])
    source = ShardsConfig(path=str(path)).build()
    assert [example["captions"] for example in contents(source)] == [[str(n)] for n in range(whole)]
    (bad,) = source.bad
    assert bad.key == str(path)
    assert "the tar is cut short" in bad.reason
    assert "(at byte " in bad.reason


def test_every_cut_is_one_bad_sample_and_costs_no_whole_example(tmp_path: Path) -> None:
    content = tar_bytes(files(0, 1, 2))
    ends = [
        ShardsConfig(path=str(write(tmp_path / "w.tar", content))).build()._shards[0].members["txt"][n].sum()
        for n in range(3)
    ]
    for cut in range(int(ends[0]), int(ends[2]) + 500, 300):
        source = ShardsConfig(path=str(write(tmp_path / f"{cut}.tar", content[:cut]))).build()
        assert len(source) == sum(int(end) <= cut for end in ends)
        assert len(source.bad) == 1
        assert contents(source)


def test_hostile_names_are_only_names(tmp_path: Path) -> None:
    path = str(
        tar(
            tmp_path / "a.tar",
            [("../../../etc/passwd.jpg", jpeg()), ("/abs/x.jpg", jpeg(1)), ("a\x1b[2J.jpg", jpeg(2))],
        )
    )
    source = ShardsConfig(path=path).build()
    assert [example["image"] for example in contents(source)] == [jpeg(0), jpeg(1), jpeg(2)]
    assert not list(tmp_path.parent.glob("etc"))


def test_what_changes_after_indexing_is_a_bad_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tar(tmp_path / "a.tar", files(1, 2))
    source = ShardsConfig(path=str(path)).build()
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    with pytest.raises(BadSample, match=r"a\.tar/1: its jpg has \d+ bytes, above the limit of 100"):
        source[0]
    monkeypatch.undo()
    write(path, path.read_bytes()[:600])
    with pytest.raises(BadSample, match="shorter than when it was indexed"):
        source[1]
    path.unlink()
    with pytest.raises(BadSample, match=r"a\.tar/1: cannot be read: No such file"):
        source[0]


def _read(source: Source, indices: list[int], answers: Any) -> None:
    answers.put([source[index]["image"] for index in indices])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_read_at_once(tmp_path: Path, method: str) -> None:
    source = ShardsConfig(path=str(tar(tmp_path / "a.tar", files(*range(20))))).build()
    source[0]
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    order = np.random.default_rng(0).permutation(20).tolist()
    workers = [context.Process(target=_read, args=(source, order, answers)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for _ in workers:
        assert answers.get(timeout=60) == [jpeg(n) for n in order]
    for worker in workers:
        worker.join()


def test_a_source_is_small_in_memory(tmp_path: Path) -> None:
    source = ShardsConfig(
        path=str(tar(tmp_path / "a.tar", [(f"{n:06}.{part}", "x") for n in range(1000) for part in ("jpg", "txt")]))
    ).build()
    assert len(pickle.dumps(source)) < 60 * 1000


def test_mistakes(tmp_path: Path) -> None:
    path = str(tar(tmp_path / "train.tar", [*files(1), ("1.cls", "cat"), ("1.json", '{"class": "x"}')]))
    for config, said in [
        (ShardsConfig(path=f"{tmp_path}/trian.tar"), "trian.tar: no such tar; did you mean 'train.tar'"),
        (ShardsConfig(path=path, label="clss"), r"label: no example has 'clss'; did you mean 'cls'"),
        (ShardsConfig(path=path, label="json.klass"), r"label: no example has 'json.klass'.*parts: .*json"),
        (ShardsConfig(path=path, captions=["text"]), r"captions: no text in the first examples \(parts: .*txt"),
        (
            ShardsConfig(path=path, image=["jp2"]),
            "holds no usable example; for example .*1: no picture among its parts",
        ),
        (ShardsConfig(path=path, class_names=["dog", "cow"]), "none of the labels .* the data has 'cat'"),
        (ShardsConfig(path=str(tar(tmp_path / "e.tar", []))), "the tars are empty"),
        (ShardsConfig(path=str(write(tmp_path / "h.tar", "<html>" * 200))), "not a tar"),
        (ShardsConfig(path=str(write(tmp_path / "z.tar", b""))), "cut short"),
    ]:
        with pytest.raises(ValueError, match=said):
            config.build()
    with pytest.raises(ValueError, match="label: no example has 'cls'"):
        ShardsConfig(path=str(tar(tmp_path / "n.tar", files(1))), class_names=["cat"]).build()


def test_real_cifar() -> None:
    source = load(SourceConfig, {"kind": "shards", "path": str(shared("cifar10") / "test.tar")}).build()
    assert len(source) == 2000
    assert source.provides == {"image", "label"}
    assert source.class_names == (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    assert decode(source[7]["image"]).size == (32, 32)
    assert sorted({source[index]["label"] for index in range(200)}) == list(range(10))
    assert not source.bad


def test_real_tiny_imagenet() -> None:
    folder = shared("tiny-imagenet")
    given = {"kind": "shards", "path": f"{folder}/val-{{0000..0000}}.tar", "label": "json.class"}
    source = load(SourceConfig, given | {"class_names": f"{folder}/classes.json"}).build()
    assert len(source) == 4000
    assert (len(source.class_names), source.class_names[0]) == (160, "European fire salamander")
    codes = load(SourceConfig, given).build()
    words = load(SourceConfig, given | {"label": "json.names"}).build()
    assert (codes.class_names[0], len(codes.class_names)) == ("n01629819", 160)
    for index in (0, 1000, 3999):
        example = source[index]
        assert source.class_names[example["label"]] == words.class_names[words[index]["label"]]
        assert example["label"] == codes[index]["label"]  # the file is in the order of the codes
        assert decode(example["image"]).size == (64, 64)
