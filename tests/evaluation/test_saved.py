import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pictura.evaluation.drawing import with_things
from pictura.evaluation.ready import Pictura
from pictura.evaluation.saved import drawn_at, saving
from tests.evaluation.test_detection import NAMES, Photographs
from tests.models.test_vild import small


def test_what_was_found_is_drawn_and_written_as_coco_has_it(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    Image.fromarray(Photographs()[0]["image"]).save(image)  # type: ignore[arg-type]
    found = Pictura(small(masks=True), None, torch.device("cpu")).detect([image], threshold=0.0, most=5)
    assert len(found[0]["boxes"]) == 5
    assert [*saving(tmp_path / "out", [image], found, NAMES)] == found
    drawn, plain = (np.asarray(Image.open(path)) for path in (tmp_path / "out" / "a.png", image))
    assert drawn.shape == plain.shape and (drawn != plain).any()
    coco = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert coco["images"] == [{"id": 1, "file_name": str(image), "width": 160, "height": 96}]
    names = {one["id"]: one["name"] for one in coco["categories"]}
    for one, name, box in zip(coco["annotations"], found[0]["text_labels"], found[0]["boxes"], strict=True):
        assert names[one["category_id"]] == name and one["image_id"] == 1
        x, y, width, height = one["bbox"]
        assert torch.allclose(torch.tensor([x, y, x + width, y + height]), box, atol=1e-3)
        assert one["segmentation"]["size"] == [96, 160]
    assert drawn_at(tmp_path, [Path("x/a.jpg"), Path("y/a.jpg"), Path("a-2.jpg")])[:] == [
        tmp_path / "a.png", tmp_path / "a-2.png", tmp_path / "a-2-2.png"
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"a\.png is one of the pictures; give another folder"):
        [*saving(tmp_path, [image], found, NAMES)]
    nothing = {key: value[:0] for key, value in found[0].items()}
    assert (np.asarray(with_things(Image.open(image), nothing)) == plain).all()
