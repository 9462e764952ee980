"""What a detector found, as files: copies of the pictures with it drawn in, and COCO's JSON."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from pictura.data.decode import decode
from pictura.evaluation.coco_results import areas_of, to_results
from pictura.evaluation.drawing import with_things
from pictura.output.files import write_text


def drawn_at(folder: Path, images: Sequence[Path]) -> list[Path]:
    """A file in `folder` for each picture, by its name; where two have the same, with a number."""
    taken, places = set[str](), list[Path]()
    for path in images:
        name = next(n for n in chain([path.stem], (f"{path.stem}-{k}" for k in count(2))) if n not in taken)
        taken.add(name)
        places.append(folder / f"{name}.png")
    given = {path.resolve() for path in images}
    if over := next((place for place in places if place.resolve() in given), None):
        raise ValueError(f"--out {folder}: {over} is one of the pictures; give another folder")
    return places


def saving(
    folder: Path, images: Sequence[Path], found: Iterable[Mapping[str, Any]], names: Sequence[str]
) -> Iterator[Mapping[str, Any]]:
    """What was found in each picture, as it comes; on the way it is drawn into a copy of the picture, and at the end
    all of it is written as COCO's JSON, with scores: a data set, whose `annotations` are COCO's results. Categories are
    in the order of `names`. ValueError where that would write over one of the pictures."""
    places = drawn_at(folder, images)
    folder.mkdir(parents=True, exist_ok=True)
    ids = {name: number for number, name in enumerate(names, 1)}
    pictures: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (path, one) in enumerate(zip(images, found, strict=True), 1):
        picture = decode(path.read_bytes(), key=str(path))
        pictures.append({"id": number, "file_name": str(path), "width": picture.width, "height": picture.height})
        rows = to_results([one], [number])
        areas = areas_of([row["segmentation"] for row in rows]) if "masks" in one else []
        for i, (row, name) in enumerate(zip(rows, one["text_labels"], strict=True)):
            area = areas[i] if areas else row["bbox"][2] * row["bbox"][3]
            more = {"id": len(annotations) + 1, "category_id": ids[name], "area": area, "iscrowd": 0}
            annotations.append(row | more)
        with_things(picture, one).save(places[number - 1])
        yield one
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    coco = {"images": pictures, "categories": categories, "annotations": annotations}
    write_text(folder / "detections.json", json.dumps(coco))
