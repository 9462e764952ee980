import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pictura.config import load
from pictura.data.cifar import Cifar
from pictura.data.decode import decode
from pictura.data.source import BadSample, SourceConfig
from tests.data.files import write

TEN = (
    "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n"  # an empty line ends the published file
)
TRAIN = [f"data_batch_{i}.bin" for i in range(1, 6)]


def build(path: Path, **more: Any) -> Cifar:
    return load(SourceConfig, {"kind": "cifar", "path": str(path), **more}).build()


def pixels(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """[y x c]"""
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def record(seed: int, *labels: int) -> bytes:
    """As the page of the data set says: labels, then the red values row after row, then green, then blue."""
    image = pixels(seed).tolist()
    planes = [bytes(image[y][x][c] for y in range(32) for x in range(32)) for c in range(3)]
    return bytes(labels) + b"".join(planes)


def cifar10(folder: Path) -> Path:
    write(folder / "batches.meta.txt", TEN)
    write(folder / "readme.html", "")
    for number, name in enumerate(TRAIN):
        write(folder / name, record(2 * number, number) + (record(2 * number + 1, 9) if number != 2 else b""))
    write(folder / "test_batch.bin", record(100, 3) + record(101, 8))
    return folder


def cifar100(folder: Path) -> Path:
    write(folder / "fine_label_names.txt", "".join(f"fine_{i}\n" for i in range(100)))
    write(folder / "coarse_label_names.txt", "".join(f"coarse_kind_{i}\n" for i in range(20)))
    write(folder / "train.bin", record(1, 0, 0))
    write(folder / "test.bin", record(2, 19, 99) + record(3, 4, 0))
    return folder


def test_cifar_10(tmp_path: Path) -> None:
    folder = cifar10(tmp_path / "cifar-10-batches-bin")
    source = build(folder)
    assert source.provides == {"image", "label"} and source.class_names == tuple(TEN.split())
    examples = [source[i] for i in range(len(source))]
    assert [(e["key"], e["label"]) for e in examples] == [
        (f"{folder}/test_batch.bin/0", 3),
        (f"{folder}/test_batch.bin/1", 8),
    ]
    for seed, example in zip((100, 101), examples, strict=True):
        np.testing.assert_array_equal(example["image"], pixels(seed))
    assert decode(examples[0]["image"]).size == (32, 32)
    with pytest.raises(IndexError):
        source[2]


def test_the_training_batches_are_one_after_the_other(tmp_path: Path) -> None:
    cifar10(tmp_path / "cifar-10-batches-bin")
    source = pickle.loads(pickle.dumps(build(tmp_path, part="train")))  # the folder above, and a copy as workers have
    assert [source[i]["label"] for i in range(len(source))] == [0, 9, 1, 9, 2, 3, 9, 4, 9]
    for index, seed in enumerate((0, 1, 2, 3, 4, 6, 7, 8, 9)):
        np.testing.assert_array_equal(source[index]["image"], pixels(seed))
    np.testing.assert_array_equal(source[-1]["image"], pixels(9))


def test_cifar_100_fine_and_coarse(tmp_path: Path) -> None:
    cifar100(tmp_path / "cifar-100-binary")
    fine, coarse = build(tmp_path), build(tmp_path / "cifar-100-binary", coarse=True)
    assert (fine.class_names[99], len(fine.class_names)) == ("fine 99", 100)
    assert (coarse.class_names[19], len(coarse.class_names)) == ("coarse kind 19", 20)
    assert [fine[i]["label"] for i in range(2)] == [99, 0]
    assert [coarse[i]["label"] for i in range(2)] == [19, 4]
    np.testing.assert_array_equal(fine[1]["image"], pixels(3))
    np.testing.assert_array_equal(coarse[1]["image"], pixels(3))
    assert len(build(tmp_path, part="train")) == 1


def test_the_same_numbers_as_torchvision_reads_from_the_python_version(tmp_path: Path) -> None:
    """Its pickles are made here, so that what both read of one picture can be compared."""
    datasets = pytest.importorskip("torchvision.datasets")
    cifar10(tmp_path / "cifar-10-batches-bin")
    batch = {"data": np.stack([pixels(seed).transpose(2, 0, 1).ravel() for seed in (100, 101)]), "labels": [3, 8]}
    write(tmp_path / "cifar-10-batches-py" / "test_batch", pickle.dumps(batch))
    write(tmp_path / "cifar-10-batches-py" / "batches.meta", pickle.dumps({"label_names": TEN.split()}))

    class Unchecked(datasets.CIFAR10):  # type: ignore[misc]
        train_list, test_list = [], [("test_batch", None)]
        meta = {"filename": "batches.meta", "key": "label_names", "md5": None}  # noqa: RUF012

    theirs, ours = Unchecked(str(tmp_path), train=False), build(tmp_path)
    assert tuple(theirs.classes) == ours.class_names
    for index in range(2):
        image, label = theirs[index]
        np.testing.assert_array_equal(np.asarray(image), ours[index]["image"])
        assert label == ours[index]["label"]


def test_pickles_and_archives_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a" / "cifar-10-batches-py" / "data_batch_1", b"")
    write(tmp_path / "a" / "cifar-10-batches-py" / "batches.meta", b"")
    for path in (tmp_path / "a", tmp_path / "a" / "cifar-10-batches-py"):
        with pytest.raises(
            ValueError, match=r"pickles, which may run code .*; get cifar-10-binary\.tar\.gz from https"
        ):
            build(path)
    write(tmp_path / "b" / "cifar-100-python" / "meta", b"")
    with pytest.raises(ValueError, match=r"get cifar-100-binary\.tar\.gz"):
        build(tmp_path / "b")
    archive = write(tmp_path / "cifar-10-binary.tar.gz", b"\x1f\x8b")
    with pytest.raises(ValueError, match=r"unpacked archive is needed; try `tar xzf cifar-10-binary\.tar\.gz`"):
        build(archive)
    (tmp_path / "c").mkdir()
    with pytest.raises(ValueError, match="c: neither data_batch_1"):
        build(tmp_path / "c")


def test_mistakes(tmp_path: Path) -> None:
    folder = cifar10(tmp_path / "cifar-10-batches-bin")
    with pytest.raises(ValueError, match=r"coarse: .* is CIFAR-10"):
        build(folder, coarse=True)
    write(folder / "test_batch.bin", record(100, 3)[:-1])
    with pytest.raises(
        ValueError, match=r"test_batch\.bin: 3,072 bytes are no whole number of pictures of 3,073 bytes"
    ):
        build(folder)
    write(folder / "test_batch.bin", b"")
    with pytest.raises(ValueError, match=r"test_batch\.bin: 0 bytes"):
        build(folder)
    write(folder / "test_batch.bin", record(0, 3) + record(1, 10))
    with pytest.raises(ValueError, match="picture 1 has label 10, and there are 10 classes"):
        build(folder)
    (folder / "data_batch_4.bin").unlink()
    with pytest.raises(ValueError, match=r"data_batch_4\.bin: no such file"):
        build(folder, part="train")
    write(folder / "batches.meta.txt", "cat\n")
    with pytest.raises(ValueError, match=r"batches\.meta\.txt: has 1 class names, and 10 are wanted"):
        build(folder)
    cifar100(tmp_path / "cifar-100-binary")
    with pytest.raises(ValueError, match=r"holds both sets; try path: .*cifar-10-batches-bin"):
        build(tmp_path)


def test_a_file_that_shrinks_or_goes_is_one_bad_sample(tmp_path: Path) -> None:
    folder = cifar10(tmp_path / "cifar-10-batches-bin")
    source = build(folder)
    write(folder / "test_batch.bin", record(100, 3)[:-1])
    with pytest.raises(BadSample, match=r"test_batch\.bin/0: the file is shorter"):
        source[0]
    (folder / "test_batch.bin").unlink()
    with pytest.raises(BadSample, match="cannot be read: No such file"):
        source[1]
