import json
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as official_mask

from pictura.evaluation.coco_results import areas_of, from_results, rle, to_results, xywh

IDS, PICTURES = (7, 3, 90), (42, 5, 1000)


def detections(seed: int = 0, masks: bool = True) -> list[dict[str, Any]]:
    """Of three pictures, in the middle one nothing; the best first."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for n in (5, 0, 3):
        corner, size = torch.rand(2, n, 2, generator=generator) * 30
        one = {"boxes": torch.cat([corner, corner + size], 1), "labels": torch.randint(3, (n,), generator=generator)}
        one["scores"] = torch.rand(n, generator=generator).sort(descending=True).values
        if masks and n:
            one["masks"] = torch.rand(n, 20, 31, generator=generator) < 0.5
        found.append(one)
    return found


def test_detections_come_back_from_json_as_they_were() -> None:
    found = detections()
    results = json.loads(json.dumps(to_results(found, PICTURES, IDS)))
    for one, back in zip(found, from_results(results[::-1], PICTURES, IDS), strict=True):
        assert torch.equal(back["labels"], one["labels"]) and torch.equal(back["scores"].float(), one["scores"])
        assert torch.equal(back["boxes"].float(), one["boxes"])
        assert ("masks" in back) is ("masks" in one)
        for packed, mask in zip(back.get("masks", []), one.get("masks", []), strict=True):
            assert np.array_equal(official_mask.decode([packed])[..., 0], mask.numpy())
    assert "masks" not in from_results(to_results(detections(masks=False)), (1, 2, 3), (1, 2, 3))[0]


def test_an_entry_says_picture_class_box_and_score() -> None:
    found = [{"boxes": torch.tensor([[1.5, 2, 4, 10]]), "scores": torch.tensor([0.25]), "labels": torch.tensor([2])}]
    entry = {"bbox": [1.5, 2.0, 2.5, 8.0], "score": 0.25}
    assert to_results(found) == [{"image_id": 1, "category_id": 3, **entry}]
    assert to_results(found, [42], IDS) == [{"image_id": 42, "category_id": 90, **entry}]


def test_masks_are_packed_as_by_the_official_code() -> None:
    masks = torch.rand(4, 20, 31, generator=torch.Generator().manual_seed(0)) < 0.3
    masks[3] = False
    packed = rle(masks)
    for one, mask in zip(packed, masks.numpy(), strict=True):
        theirs = official_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert one == {"size": [20, 31], "counts": theirs["counts"].decode()}
    assert areas_of(packed) == masks.sum((1, 2)).tolist()
    assert rle(masks[:0]) == [] and areas_of([]) == []


def test_boxes_become_corner_and_size() -> None:
    assert xywh(np.array([[1, 2, 4, 8]], np.float32)) == [[1, 2, 3, 6]]
    assert xywh(torch.empty(0, 4)) == [] and xywh([]) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_id": 6}, "entry 1 has image_id 6, which the data has not"),
        ({"category_id": 8}, "entry 1 has category_id 8, which the data has not"),
        ({"score": None}, "entry 1 has no score"),
    ],
)
def test_an_entry_of_something_else_is_refused(change: dict[str, Any], words: str) -> None:
    results = to_results(detections(), PICTURES, IDS)
    results[1] = {name: value for name, value in (results[1] | change).items() if value is not None}
    with pytest.raises(ValueError, match=words):
        from_results(results, PICTURES, IDS)
