import os
import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

from pictura.config import load
from pictura.data.imagenet import ImageNet, ImageNetConfig, classes, listed
from pictura.data.source import BadSample, SourceConfig
from tests.data.files import jpeg, write

TENCH, GOLDFISH, PAPER = "n01440764", "n01443537", "n15075141"  # 0, 1 and 999 of the 1,000


def build(path: Path, **more: Any) -> ImageNet:
    return load(SourceConfig, {"kind": "imagenet", "path": str(path), **more}).build()


def pictures(root: Path, *folders: str) -> Path:
    for number, folder in enumerate(folders):
        write(root / folder / f"{folder}_{number}.JPEG", jpeg(number))
    return root


def labels(source: ImageNet) -> list[tuple[str, int]]:
    return [(Path(source[i]["key"]).parent.name, source[i]["label"]) for i in range(len(source))]


def peer(name: str, *inside: str) -> Path:
    """A file of a peer, which is slow to import and need not be."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        pytest.skip(f"{name} is not installed")
    return Path(spec.origin).parent.joinpath(*inside)


def peers_list(name: str) -> list[str]:
    return peer("timm", "data", "_info", name).read_text().split()


def test_the_thousand_classes_are_those_of_the_peers() -> None:
    theirs = run_path(str(peer("open_clip", "zero_shot_metadata.py")))["IMAGENET_CLASSNAMES"]
    assert [name for _, _, name in listed()] == list(theirs)
    assert [wnid for wnid, _, _ in listed()] == peers_list("imagenet_synsets.txt")
    assert {sets for _, sets, _ in listed()} == {"-", "r", "a", "ra"}
    assert list(classes("r")[0]) == peers_list("imagenet_r_synsets.txt")
    assert list(classes("a")[0]) == peers_list("imagenet_a_synsets.txt")


def test_the_list_by_itself() -> None:
    wnids, names = classes()
    assert len(wnids) == len(names) == 1000
    assert list(wnids) == sorted(set(wnids)) and all(re.fullmatch(r"n\d{8}", wnid) for wnid in wnids)
    assert (names[0], names[1], names[134], names[517], names[999]) == (
        "tench",
        "goldfish",
        "crane bird",
        "construction crane",
        "toilet paper",
    )
    assert classes("v2") == classes("sketch") == classes()
    for which in ("r", "a"):
        some, called = classes(which)
        assert len(some) == len(called) == 200 and list(some) == sorted(some) and set(some) < set(wnids)


def test_no_two_classes_have_one_name_and_only_clips_repeated_names_are_changed() -> None:
    published = [name for _, _, name in listed()]
    assert {name for name, uses in Counter(published).items() if uses > 1} == {"missile", "sunglasses"}
    for which in ("imagenet", "r", "a"):
        assert Counter(classes(which)[1]).most_common(1)[0][1] == 1
    changed = [(i, old, new) for i, (old, new) in enumerate(zip(published, classes()[1], strict=True)) if old != new]
    assert changed == [(744, "missile", "projectile"), (836, "sunglasses", "sunglass")]
    assert "missile" in classes("r")[1]  # one of the two is in it, under its own name


@pytest.mark.parametrize("which", ["imagenet", "sketch"])
def test_wordnet_folders_in_imagenets_order(tmp_path: Path, which: str) -> None:
    root = pictures(tmp_path / "val", PAPER, TENCH, GOLDFISH)
    write(root / GOLDFISH / "a.JPEG", jpeg(7))
    write(root / "README.txt", "")
    source = build(root, set=which)
    assert source.provides == {"image", "label"} and len(source.class_names) == 1000
    assert labels(source) == [(TENCH, 0), (GOLDFISH, 1), (GOLDFISH, 1), (PAPER, 999)]
    assert [source[i]["image"] for i in range(4)] == [jpeg(1), jpeg(7), jpeg(2), jpeg(0)]
    with pytest.raises(IndexError):
        source[4]


def test_v2_has_numbers_and_not_in_the_order_of_their_spelling(tmp_path: Path) -> None:
    source = build(pictures(tmp_path / "imagenetv2-matched-frequency-format-val", "10", "2", "999"), set="v2")
    assert labels(source) == [("2", 2), ("10", 10), ("999", 999)]
    assert source.class_names[2] == "great white shark"
    for name in ("1000", "007", "n01440764"):
        with pytest.raises(ValueError, match=rf"'{name}' is none of the 1,000 classes of ImageNet-V2"):
            build(pictures(tmp_path / name, name), set="v2")


@pytest.mark.parametrize(("which", "wnid"), [("r", GOLDFISH), ("a", "n01498041")])
def test_the_smaller_sets_ask_among_their_own_two_hundred(tmp_path: Path, which: str, wnid: str) -> None:
    source = build(pictures(tmp_path / "set", "n12267677", wnid), set=which)
    assert len(source.class_names) == 200
    assert labels(source) == [(wnid, 0), ("n12267677", 199)]
    assert source.class_names[0] in ("goldfish", "stingray") and source.class_names[199] == "acorn"
    with pytest.raises(
        ValueError, match=r"'n01440764' is none of the 200 classes.*one of the 1,000 of `set: imagenet`"
    ):
        build(pictures(tmp_path / "other", TENCH), set=which)


def test_a_folder_that_is_no_class(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"'n0144076' is none of the 1,000 classes of ImageNet; did you mean 'n01440764'"
    ):
        build(pictures(tmp_path / "typo", "n0144076"))
    with pytest.raises(ValueError, match=r"'7' is none of the 1,000 classes of ImageNet; .* say `set: v2`"):
        build(pictures(tmp_path / "numbers", "7"))
    pictures(tmp_path / "whole" / "val", TENCH)
    with pytest.raises(ValueError, match=r"'val' is none of .*it holds class folders: try path: .*whole/val$"):
        build(tmp_path / "whole")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no picture of ImageNet is in it; the class folders"):
        build(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"set: .* 'imagenet', 'v2', 'r', 'a', 'sketch', got 'o'"):
        build(tmp_path, set="o")


def test_kaggles_validation_pictures_lie_flat(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write(tmp_path / "val" / f"ILSVRC2012_val_0000000{number}.JPEG", jpeg(number))
    with pytest.raises(
        ValueError, match=r"00000001\.JPEG lies in no class folder; .* LOC_val_solution\.csv as `truth`"
    ):
        build(tmp_path / "val")
    table = "ImageId,PredictionString\n"
    table += f"ILSVRC2012_val_00000003,{TENCH} 85 1 499 272 \n"
    table += f"ILSVRC2012_val_00000001,{PAPER} 0 0 9 9 {PAPER} 3 3 8 8 \nILSVRC2012_val_00048981,{GOLDFISH} 0 0 1 1 \n"
    truth = write(tmp_path / "LOC_val_solution.csv", table)
    source = build(tmp_path / "val", truth=str(truth))
    assert [source[i]["label"] for i in range(len(source))] == [999, 0]
    assert [source[i]["image"] for i in range(len(source))] == [jpeg(1), jpeg(3)]
    assert [str(bad) for bad in source.bad] == [
        f"{tmp_path}/val/ILSVRC2012_val_00000002.JPEG: LOC_val_solution.csv does not have it"
    ]


def test_mistakes_in_the_truth(tmp_path: Path) -> None:
    write(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG", jpeg())
    kit = write(tmp_path / "ILSVRC2012_validation_ground_truth.txt", "490\n361\n")
    with pytest.raises(ValueError, match=r"truth: .*truth\.txt:1: '490' should be a picture's name, .*LOC_val"):
        build(tmp_path / "val", truth=str(kit))
    strange = write(tmp_path / "a.csv", "ImageId,PredictionString\nILSVRC2012_val_00000001,n00000001 0 0 1 1\n")
    with pytest.raises(ValueError, match=r"a\.csv:2: 'ILSVRC2012_val_00000001,n00000001 0 0 1 1' should"):
        build(tmp_path / "val", truth=str(strange))
    other = write(tmp_path / "b.csv", f"x,{TENCH} 0 0 1 1\n")
    with pytest.raises(
        ValueError, match=r"no picture of ImageNet is in it; .*b\.csv does not have ILSVRC2012_val_00000001"
    ):
        build(tmp_path / "val", truth=str(other))
    with pytest.raises(ValueError, match=r"truth: ImageNet-V2 is published in class folders"):
        ImageNetConfig(path=tmp_path, set="v2", truth=other)


def test_links_and_a_file_that_is_gone(tmp_path: Path) -> None:
    root, elsewhere = pictures(tmp_path / "val", TENCH), pictures(tmp_path / "elsewhere", GOLDFISH)
    os.symlink(elsewhere / GOLDFISH, root / GOLDFISH)
    with pytest.raises(ValueError, match="outside_links: true if you trust it"):
        build(root)
    source = build(root, outside_links=True)
    assert labels(source)[1] == (GOLDFISH, 1)
    (root / TENCH / f"{TENCH}_0.JPEG").unlink()
    with pytest.raises(BadSample, match="no such file"):
        source[0]
