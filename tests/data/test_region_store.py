"""A store gives back what was written, goes on after an interruption, and refuses what is not its own."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from pictura.data.region_store import RegionStore
from pictura.data.scenes import ScenesConfig
from pictura.data.taught import Taught, TaughtConfig
from tests.data.test_coco_objects import federated

ABOUT = {"teacher": "a", "proposer": "b"}
WORLD = ScenesConfig(count=4, image_size=16, gives=("image", "boxes"))


def made(folder: Path, teacher: str = "a", regions: int = 5) -> RegionStore:
    return RegionStore.create(folder, ABOUT | {"teacher": teacher}, examples=4, regions=regions, width=6)


def rows(index: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(index)
    return rng.uniform(0, 16, (index, 4)).astype(np.float32), rng.normal(size=(index, 6)).astype(np.float16)


def test_what_is_written_comes_back_after_an_interruption(tmp_path: Path) -> None:
    store = made(tmp_path / "s")
    assert store.missing.tolist() == [0, 1, 2, 3] and len(store) == 4
    for index in (2, 0):
        store.write(index, f"train-{index}", *rows(index))
    store.flush()
    again = made(tmp_path / "s")
    assert again.missing.tolist() == [1, 3]
    with pytest.raises(ValueError, match="nobody has written the regions of example 3"):
        again[3]
    for index in (1, 3):
        again.write(index, f"train-{index}", *rows(index))
    again.flush()
    for index in range(4):
        boxes, vectors = RegionStore(tmp_path / "s")[index]
        assert (boxes == rows(index)[0]).all() and (vectors == rows(index)[1]).all()
        assert boxes.shape == (index, 4) and vectors.dtype == np.float16


def test_another_teacher_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    store = made(tmp_path / "s")
    store.write(1, "train-1", *rows(1))
    store.flush()
    with pytest.raises(ValueError, match=r"another teacher \(a, not c\); give it another folder"):
        made(tmp_path / "s", teacher="c")
    with pytest.raises(ValueError, match=r"another regions \(5, not 7\)"):
        made(tmp_path / "s", regions=7)
    assert made(tmp_path / "s").missing.tolist() == [0, 2, 3]


def test_a_source_gives_its_examples_with_their_regions(tmp_path: Path) -> None:
    store = made(tmp_path / "s")
    with pytest.raises(ValueError, match="regions of 4 of 4 examples are missing; go on with `pictura teach`"):
        TaughtConfig(of=WORLD, store=tmp_path / "s").build()
    plain = WORLD.build()
    for index in range(4):
        store.write(index, plain[index]["key"], *rows(index))
    store.flush()
    source = TaughtConfig(of=WORLD, store=tmp_path / "s").build()
    assert source.provides == plain.provides | {"regions", "region_vectors"}
    example = source[3]
    assert (example["image"] == plain[3]["image"]).all()
    assert (example["regions"] == rows(3)[0]).all()  # type: ignore[typeddict-item]
    assert (example["region_vectors"] == rows(3)[1]).all()  # type: ignore[typeddict-item]


def test_other_data_is_refused(tmp_path: Path) -> None:
    store = made(tmp_path / "s")
    for index in range(4):
        store.write(index, f"elsewhere-{index}", *rows(index))
    store.flush()
    source = TaughtConfig(of=WORLD, store=tmp_path / "s").build()
    with pytest.raises(ValueError, match="its example 2 is not train-2; it was written for other data"):
        source[2]
    with pytest.raises(ValueError, match="has regions of 4 examples; the data has 5"):
        TaughtConfig(of=ScenesConfig(count=5, image_size=16), store=tmp_path / "s").build()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"examples": 4}', '{"examples": -1, "regions": 5, "width": 6}', '{"examples": "4"}']
)
def test_a_broken_store_is_a_clear_error(tmp_path: Path, content: str) -> None:
    made(tmp_path / "s")
    (tmp_path / "s" / "store.json").write_text(content)
    with pytest.raises(ValueError, match=r"store\.json: "):
        RegionStore(tmp_path / "s")


def test_a_cut_off_array_is_a_clear_error(tmp_path: Path) -> None:
    made(tmp_path / "s")
    (tmp_path / "s" / "vectors.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"vectors\.bin: is missing or not of 240 bytes"):
        RegionStore(tmp_path / "s")
    with pytest.raises(ValueError, match="no such folder"):
        RegionStore(tmp_path / "nowhere")


def test_the_counts_come_last_and_the_writer_knows_them_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made(tmp_path / "s")
    store.write(2, "train-2", *rows(2))
    assert store.missing.tolist() == [0, 1, 3] and (store[2].boxes == rows(2)[0]).all()
    assert (store[-2].vectors == rows(2)[1]).all()

    def full() -> None:
        raise OSError("no space left")

    for name in ("boxes", "vectors", "keys"):
        with monkeypatch.context() as patched:
            patched.setattr(store.arrays[name], "flush", full)
            with pytest.raises(OSError, match="no space"):
                store.flush()
        assert (np.fromfile(tmp_path / "s" / "counts.bin", np.int32) == -1).all(), f"{name} may not be on the disk"
    store.flush()
    assert np.fromfile(tmp_path / "s" / "counts.bin", np.int32).tolist() == [-1, -1, 2, -1]
    assert store.missing.tolist() == [0, 1, 3] and len(store[2].boxes) == 2


def vectors_of(store: RegionStore, index: int) -> np.ndarray:
    return store[index].vectors


def test_a_worker_opens_the_store_and_is_not_sent_it(tmp_path: Path) -> None:
    store = RegionStore.create(tmp_path / "s", ABOUT, examples=1000, regions=50, width=6)
    store.write(3, "train-3", *rows(3))
    store.flush()
    for one in (store, RegionStore(tmp_path / "s")):
        sent = pickle.dumps(one)
        assert len(sent) < 1000
        assert (pickle.loads(sent)[3].boxes == rows(3)[0]).all()
    with pytest.raises(ValueError, match="read-only"):
        pickle.loads(sent).write(0, "a", *rows(1))
    pickle.loads(pickle.dumps(store)).write(0, "a", *rows(1))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert (pool.submit(vectors_of, store, 3).result() == rows(3)[1]).all()


def test_data_that_was_moved_is_the_same_data(tmp_path: Path) -> None:
    store = made(tmp_path / "s")
    store.write(0, "/here/train2017/1.jpg", *rows(1))
    store.check(0, "/there/and/further/train2017/1.jpg")
    store.check(0, "train2017/1.jpg")
    for other in ("/here/train2017/2.jpg", "/here/val2017/1.jpg", "1.jpg"):
        with pytest.raises(ValueError, match="it was written for other data"):
            store.check(0, other)
    store.write(1, "/odd/\udcff.jpg", *rows(1))
    store.check(1, "/odd/\udcff.jpg")


def test_what_is_said_of_pictures_and_classes_stays(tmp_path: Path) -> None:
    source = federated(tmp_path / "data")
    store = RegionStore.create(tmp_path / "s", ABOUT, examples=3, regions=5, width=6)
    for index in range(3):
        store.write(index, source[index]["key"], *rows(index))
    own = Taught(source, store)
    assert own.image_ids == source.image_ids and own.federated
    assert (own.category_ids, own.frequencies) == (source.category_ids, source.frequencies)
    assert own.negatives and own.not_exhaustive and own.objects
    for index in range(3):
        assert own.negatives(index).tolist() == source.negatives(index).tolist()
        assert own.not_exhaustive(index).tolist() == source.not_exhaustive(index).tolist()
        assert own.objects(index)["areas"].tolist() == source.objects(index)["areas"].tolist()
    assert own.class_names == source.class_names and own.bad == source.bad


def test_captions_stay_too(tmp_path: Path) -> None:
    store, plain = (
        made(tmp_path / "s"),
        ScenesConfig(count=4, image_size=16, gives=("image", "captions", "boxes")).build(),
    )
    for index in range(4):
        store.write(index, plain[index]["key"], *rows(index))
    own = Taught(plain, store)
    assert list(own.all_captions()) == list(plain.all_captions()) != []
    assert own[2]["captions"] == own.captions(2) == plain.captions(2)
    assert own.image_ids is own.objects is own.negatives is None
