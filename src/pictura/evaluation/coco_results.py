"""Detections in the form that COCO's and LVIS's servers and tools take: a JSON list with an entry for each box.

Detections of one picture are a dict: `boxes` [n 4] (x0 y0 x1 y1 in pixels), `scores` [n], `labels` [n], and perhaps
`masks`, [n y x] bool or as `rle` packs them, since those of a whole data set fit in no memory otherwise.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Detections = Mapping[str, Any]


def to_results(
    found: Iterable[Detections], image_ids: Sequence[int] | None = None, category_ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Detections of pictures -> COCO's results JSON; boxes x y width height. Without official ids all count from 1."""
    results = []
    for place, one in enumerate(found):
        labels, scores, masks = one["labels"].tolist(), one["scores"].tolist(), one.get("masks")
        packed = rle(masks) if isinstance(masks, Tensor) else masks
        for i, box in enumerate(xywh(one["boxes"])):
            image = place + 1 if image_ids is None else image_ids[place]
            category = labels[i] + 1 if category_ids is None else category_ids[labels[i]]
            result = {"image_id": image, "category_id": category, "bbox": box, "score": scores[i]}
            results.append(result | ({"segmentation": packed[i]} if packed is not None else {}))
    return results


def from_results(
    results: Iterable[Mapping[str, Any]], image_ids: Sequence[int], category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """COCO's results JSON -> detections of each picture, the best first; float64, as JSON has numbers, and masks stay
    packed. ValueError for an entry that is not of these pictures and classes."""
    label_of = {category: label for label, category in enumerate(category_ids)}
    of_picture: dict[int, list[tuple[Mapping[str, Any], int]]] = {image: [] for image in image_ids}
    for number, one in enumerate(results):
        if gone := {"image_id", "category_id", "bbox", "score"} - one.keys():
            raise ValueError(f"results: entry {number} has no {' and no '.join(sorted(gone))}")
        if one["image_id"] not in of_picture or one["category_id"] not in label_of:
            strange = "category_id" if one["image_id"] in of_picture else "image_id"
            raise ValueError(f"results: entry {number} has {strange} {one[strange]}, which the data has not")
        of_picture[one["image_id"]].append((one, label_of[one["category_id"]]))
    found = []
    for some in of_picture.values():
        some.sort(key=lambda pair: -pair[0]["score"])
        boxes = torch.tensor([one["bbox"] for one, _ in some], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        scores = torch.tensor([one["score"] for one, _ in some], dtype=torch.float64)
        detections: dict[str, Any] = {"boxes": boxes, "scores": scores}
        detections["labels"] = torch.tensor([label for _, label in some], dtype=torch.long)
        if some and all("segmentation" in one for one, _ in some):
            detections["masks"] = [one["segmentation"] for one, _ in some]
        found.append(detections)
    return found


def rle(masks: Tensor) -> list[dict[str, Any]]:
    """masks: [n y x] bool -> COCO's packed run lengths, {"size": [y, x], "counts": text} each."""
    from faster_coco_eval.core.mask import encode

    packed = encode(np.asfortranarray(masks.detach().cpu().numpy().astype(np.uint8).transpose(1, 2, 0)))
    return [{"size": [int(side) for side in one["size"]], "counts": one["counts"].decode()} for one in packed]


def xywh(boxes: Any) -> list[list[float]]:
    """boxes: [n 4], x0 y0 x1 y1 -> x y width height, as COCO writes them."""
    corners = torch.as_tensor(boxes).detach().cpu().double().reshape(-1, 4)
    return torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).tolist()


def areas_of(packed: list[dict[str, Any]]) -> list[float]:
    """Pixels of each of `rle`'s masks."""
    from faster_coco_eval.core.mask import area

    return [float(one) for one in area(packed)] if packed else []
