import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from torchvision.datasets import VOCDetection

from pictura.config import load
from pictura.data.source import BadSample, SourceConfig
from pictura.data.voc import CLASSES, MAX_XML, Voc, VocConfig, read_xml
from tests.data.files import encoded, jpeg, photo, write


def thing(name: str, *corners: Any, difficult: Any = 0, more: str = "") -> str:
    box = "".join(
        f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    flags = f"<pose>Left</pose><difficult>{difficult}</difficult>"
    return f"<object><name>{name}</name>{flags}<bndbox>{box}</bndbox>{more}</object>"


def annotation(*things: str, size: str = "<width>40</width><height>30</height><depth>3</depth>", head: str = "") -> str:
    inside = f"<folder>VOC</folder><size>{size}</size><segmented>0</segmented>{''.join(things)}"
    return f"{head}<annotation>{inside}</annotation>"


PART = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part>"
ONE = annotation(thing("dog", 1, 1, 40, 30), thing("person", 8, 12, 20, 21.5, difficult=1, more=PART))
TWO = annotation(thing("cat", 3, 4, 9, 9))


def write_voc(folder: Path, notes: dict[str, str | bytes], **splits: str) -> Path:
    for number, (stem, note) in enumerate(notes.items()):
        write(folder / "Annotations" / f"{stem}.xml", note)
        write(folder / "JPEGImages" / f"{stem}.jpg", jpeg(number))
    for split, lines in splits.items():
        write(folder / "ImageSets" / "Main" / f"{split}.txt", lines)
    return folder


def all_of(path: Path, **more: Any) -> Voc:
    return VocConfig(path=path, split=None, **more).build()


def reasons(source: Voc, path: Path) -> list[str]:
    return [str(bad).removeprefix(f"{path.resolve()}/") for bad in source.bad]


def test_the_pictures_of_a_split(tmp_path: Path) -> None:
    path = write_voc(
        tmp_path, {"0001": ONE, "0002": TWO, "0003": annotation()}, trainval="0003\n0001\n", test="0002  1\n"
    )
    source = load(SourceConfig, {"kind": "voc", "path": str(path)}).build()
    assert source.provides == {"image", "boxes", "labels", "crowd"}
    assert source.class_names == CLASSES
    assert len(source) == 2
    assert not source.bad
    assert source[0]["boxes"].shape == (0, 4), "a picture without boxes is an example all the same"
    one = source[1]
    assert one["key"] == str(tmp_path / "JPEGImages" / "0001.jpg")
    assert one["image"] == jpeg(0)
    assert one["boxes"].tolist() == [[0, 0, 40, 30], [7, 11, 20, 21.5]], "pixels from 0; parts of a thing are no things"
    assert [source.class_names[label] for label in one["labels"]] == ["dog", "person"]
    assert one["crowd"].tolist() == [False, True]
    with pytest.raises(IndexError):
        source[2]
    (test,) = [VocConfig(path=path, split="test").build()[0]]
    assert test["labels"].tolist() == [CLASSES.index("cat")]
    assert len(all_of(path)) == 3


def test_the_classes_are_vocs_own_twenty() -> None:
    assert len(set(CLASSES)) == 20
    assert list(CLASSES) == sorted(CLASSES)


def test_boxes_are_what_torchvision_reads(tmp_path: Path) -> None:
    source = all_of(write_voc(tmp_path, {"0001": ONE, "0002": TWO}))
    for index, text in enumerate((ONE, TWO)):
        peer = VOCDetection.parse_voc_xml(ElementTree.fromstring(text))["annotation"]["object"]
        corners = [[float(one["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")] for one in peer]
        assert source[index]["boxes"].tolist() == [[x0 - 1, y0 - 1, x1, y1] for x0, y0, x1, y1 in corners]
        assert [source.class_names[label] for label in source[index]["labels"]] == [one["name"] for one in peer]
        assert source[index]["crowd"].tolist() == [one["difficult"] == "1" for one in peer]


def test_names_of_ones_own(tmp_path: Path) -> None:
    path = write_voc(tmp_path, {"1": annotation(thing("zebra", 1, 1, 9, 9), thing(" ape ", 2, 2, 9, 9))})
    source = all_of(path)
    assert source.class_names == ("ape", "zebra")
    assert source[0]["labels"].tolist() == [1, 0]
    given = all_of(path, class_names=["zebra", "ant", "apes"])
    assert given.class_names == ("zebra", "ant", "apes")
    assert given[0]["labels"].tolist() == [0]
    listed = all_of(path, class_names=write(tmp_path / "names.txt", "zebra\nape\n"))
    assert listed[0]["labels"].tolist() == [0, 1]
    with pytest.raises(ValueError, match="the class 'zebra' is listed twice"):
        all_of(path, class_names=["zebra", "zebra"])
    with pytest.raises(ValueError, match="none of the labels in the data"):
        all_of(path, class_names=["lion"])


def test_bad_boxes_are_named_and_the_rest_counts(tmp_path: Path) -> None:
    note = annotation(
        thing("dog", 5, 5, 4, 9),
        thing("dog", 5, 5, 9, "nan"),
        thing("dog", "", "x", 9, 9),
        "<object><name>dog</name></object>",
        thing(" ", 1, 1, 9, 9),
        thing("dog", 50, 1, 60, 9),
        thing("dog", -3, 1, 99, 9, difficult="Unspecified"),
    )
    path = write_voc(tmp_path, {"1": note})
    source = all_of(path)
    assert source[0]["boxes"].tolist() == [[0, 0, 40, 9]]
    assert source[0]["crowd"].tolist() == [False]
    assert reasons(source, path) == [
        "Annotations/1.xml: object[4]: has no name",
        "Annotations/1.xml: object[0]: its box 4 4 4 9 has no area inside the picture of 40 x 30",
        "Annotations/1.xml: object[1]: its box holds NaN or infinity",
        "Annotations/1.xml: object[2]: its box holds NaN or infinity",
        "Annotations/1.xml: object[3]: its box holds NaN or infinity",
        "Annotations/1.xml: object[5]: its box 49 0 60 9 has no area inside the picture of 40 x 30",
    ]


def test_bad_files_are_named_and_the_rest_counts(tmp_path: Path) -> None:
    write(tmp_path / "secret.xml", TWO)
    path = write_voc(
        tmp_path / "voc",
        {"1": ONE, "2": "<annotation>", "3": b"\xff\xfe\x00", "4": "", "5": TWO, "6": f"<a>{' ' * MAX_XML}</a>"},
        trainval="1\n2\n3\n4\n\n6\n7\n8\n1\n../../secret\n",
    )
    write(path / "JPEGImages" / "7.jpg", jpeg())
    source = VocConfig(path=path).build()
    assert [source[index]["image"] for index in range(len(source))] == [jpeg(0)]
    assert [text[:55] for text in reasons(source, path)] == [
        "Annotations/2.xml: not XML: no element found: line 1, c",
        *[text[:55] for text in reasons(source, path)[1:3]],
        "Annotations/6.xml: 16,777,223 bytes, above the limit of",
        "Annotations/7.xml: no such file",
        "ImageSets/Main/trainval.txt:8: no picture 8 in JPEGImag",
        "ImageSets/Main/trainval.txt:10: no picture ../../secret",
    ]
    assert [text[:26] for text in reasons(source, path)[1:3]] == [f"Annotations/{n}.xml: not XML" for n in (3, 4)]


def laughs(levels: int) -> str:
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, levels))
    return f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l0 "lol">{entities}]>'


@pytest.mark.parametrize(
    "hostile",
    [
        annotation(thing("&l11;", 1, 1, 9, 9), head=laughs(12)),
        annotation(thing("&file;", 1, 1, 9, 9), head='<!DOCTYPE a [<!ENTITY file SYSTEM "file:///etc/passwd">]>'),
        annotation(thing("dog", 1, 1, 9, 9), head='<!DOCTYPE a [<!ENTITY % p SYSTEM "http://x.invalid/">%p;]>'),
        annotation(thing("&q;" * 50_000, 1, 1, 9, 9), head=f'<!DOCTYPE a [<!ENTITY q "{"q" * 50_000}">]>'),
    ],
    ids=["billion laughs", "a file of this machine", "a web address", "quadratic"],
)
def test_entities_are_refused_at_once(tmp_path: Path, hostile: str) -> None:
    path = write_voc(tmp_path, {"1": hostile, "2": TWO})
    begun = time.perf_counter()
    source = all_of(path)
    assert time.perf_counter() - begun < 1
    assert [source[index]["image"] for index in range(len(source))] == [jpeg(1)]
    assert reasons(source, path) == ["Annotations/1.xml: declares XML entities, which no annotation needs"]


def test_xml_of_any_shape() -> None:
    assert (
        read_xml(f"<!DOCTYPE annotation SYSTEM 'http://x.invalid/voc.dtd'>{TWO}".encode(), "a").findtext("object/name")
        == "cat"
    )
    assert read_xml(TWO.encode("utf-16"), "a").findtext("object/name") == "cat"
    deep = read_xml(b"<a>" * 200_000 + b"</a>" * 200_000, "a")
    assert deep.find("object") is None
    del deep
    for data in (b"<a></b>", b"<a>", b"", b"<a/><b/>", b"\x00", b"<?xml version='1.0' encoding='gb2312'?><a>\xb9</a>",
                 b"<?xml version='1.0' encoding='nonsense'?><a/>", b"<a>&undefined;</a>"):  # fmt: skip
        with pytest.raises(BadSample, match="here: not XML"):
            read_xml(data, "here")


def test_the_files_size_or_the_pictures_where_it_says_none(tmp_path: Path) -> None:
    notes = {
        "1": annotation(thing("dog", 1, 1, 99, 99), size="<width>0</width><height>0</height>"),
        "2": "<annotation>" + thing("dog", 1, 1, 99, 99) + "</annotation>",
        "3": annotation(thing("dog", 1, 1, 99, 99), size="<width>30</width><height>40</height>"),
    }
    source = all_of(write_voc(tmp_path, notes))
    assert [source[index]["boxes"].tolist() for index in (0, 1)] == [[[0, 0, 40, 30]]] * 2
    with pytest.raises(BadSample, match=r"3\.jpg: has 40 x 30 pixels upright, but its annotations are for 30 x 40"):
        source[2]


def test_pictures_of_other_formats(tmp_path: Path) -> None:
    path = write_voc(tmp_path, {"1": ONE})
    (path / "JPEGImages" / "1.jpg").unlink()
    image = encoded(photo((40, 30)))
    write(path / "JPEGImages" / "1.PNG", image)
    assert all_of(path)[0]["image"] == image


def test_mistakes(tmp_path: Path) -> None:
    path = write_voc(tmp_path / "VOC2007", {"1": TWO}, trainval="1", empty="", gone="7\n")
    for config, said in [
        (VocConfig(path=tmp_path), "JPEGImages: no such folder"),
        (VocConfig(path=path, split="trianval"), r"trianval\.txt: no such file; did you mean 'trainval\.txt'"),
        (VocConfig(path=path, split="empty"), "no usable picture$"),
        (VocConfig(path=path, split="gone"), r"no usable picture; for example .*gone\.txt:1: no picture 7"),
    ]:
        with pytest.raises(ValueError, match=said):
            config.build()
    bare = write_voc(tmp_path / "mine", {"1": TWO})
    with pytest.raises(ValueError, match="has no ImageSets/Main with splits; set `split: null`"):
        VocConfig(path=bare).build()


def test_a_class_that_is_left_out_on_purpose_is_nothing_bad(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_voc(tmp_path, {"1": ONE, "2": TWO, "3": ONE})
    source = all_of(path, class_names=["cat", "person"])
    assert [source[index]["labels"].tolist() for index in range(3)] == [[1], [0], [1]]
    assert not source.bad
    assert f"{path}: boxes of classes that are not among class_names are left out: dog (2)" in caplog.text
    caplog.clear()
    all_of(path)
    assert not caplog.text


@pytest.mark.parametrize("side", ["1e30", "2147483648", "inf"])
def test_a_size_beyond_all_measure_is_bad(tmp_path: Path, side: str) -> None:
    size = f"<width>40</width><height>{side}</height>"
    path = write_voc(tmp_path, {"1": annotation(thing("dog", 1, 1, 9, 9), size=size), "2": TWO})
    source = all_of(path)
    assert [source[index]["image"] for index in range(len(source))] == [jpeg(1)]
    assert reasons(source, path) == [f"Annotations/1.xml: says that the picture has 40 x {float(side):g} pixels"]
