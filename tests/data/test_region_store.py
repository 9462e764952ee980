"""A store gives back what was written, goes on after an interruption, and refuses what is not its own."""

from pathlib import Path

import numpy as np
import pytest

from pictura.data.region_store import RegionStore
from pictura.data.scenes import ScenesConfig
from pictura.data.taught import TaughtConfig

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
    made(tmp_path / "s").write(1, "train-1", *rows(1))
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
