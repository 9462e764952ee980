"""How well boxes and masks are found: average precision by COCO's rules (Lin et al. 2014) and by LVIS's, whose pictures
are labelled for some of the classes each (Gupta et al. 2019, section 3); counted by faster-coco-eval, not by us.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pictura.evaluation.coco_results import Detections, areas_of, rle, to_results, xywh

Groups = Mapping[str, Collection[int]]  # {"base": labels, "novel": labels}

MOST, MOST_FEDERATED = 100, 300  # detections that count: of a class in a picture; of all classes in a picture
SIZES = ("", "s", "m", "l")  # all, below 32² pixels, below 96², above
FREQUENCIES = ("r", "c", "f")  # LVIS: in under 10 training pictures, in under 100, in more


@dataclass(frozen=True)
class Truth:
    """What there is to find, as COCO's JSON has it. `Truth.of` makes it."""

    coco: dict[str, Any]
    keys: tuple[str, ...]  # the pictures' names for people

    @classmethod
    def of(
        cls,
        examples: Iterable[Mapping[str, Any]],
        class_names: Sequence[str],
        *,
        image_ids: Sequence[int] | None = None,
        category_ids: Sequence[int] | None = None,
        frequencies: Sequence[str] | None = None,
        negatives: Sequence[Iterable[int]] | None = None,
        not_exhaustive: Sequence[Iterable[int]] | None = None,
    ) -> "Truth":
        """examples: `boxes` [k 4] and `labels` [k] each, and perhaps `crowd` [k] bool, `masks` ([k y x] bool, or as
        `rle` packs them), `areas` [k] (else those of masks, else of boxes), `size` (y, x) and `key`. Without official
        ids all count from 1.

        `frequencies` are of classes (r, c or f); `negatives` (labels that are surely not in it) and `not_exhaustive`
        (labels of which not all boxes are drawn) are of pictures, and make the truth a federated one.
        """
        ids = list(range(1, len(class_names) + 1) if category_ids is None else category_ids)
        categories = [{"id": one, "name": name} for one, name in zip(ids, class_names, strict=True)]
        for category, frequency in zip(categories, frequencies or (), strict=bool(frequencies)):
            category["frequency"] = frequency
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        keys = []
        for place, example in enumerate(examples):
            image: dict[str, Any] = {"id": place + 1 if image_ids is None else int(image_ids[place])}
            boxes, labels = xywh(example["boxes"]), torch.as_tensor(example["labels"]).tolist()
            crowd = torch.as_tensor(example.get("crowd", [False] * len(boxes))).tolist()
            packed = masks if isinstance(masks := example.get("masks"), list | None) else rle(torch.as_tensor(masks))
            areas = example.get("areas", [w * h for _, _, w, h in boxes] if packed is None else areas_of(packed))
            if packed or "size" in example:
                size = packed[0]["size"] if packed else example["size"]
                image |= {"height": int(size[0]), "width": int(size[1])}
            if negatives is not None:
                image["neg_category_ids"] = [ids[label] for label in negatives[place]]
                incomplete = not_exhaustive[place] if not_exhaustive is not None else ()
                image["not_exhaustive_category_ids"] = [ids[label] for label in incomplete]
            for i, (box, label) in enumerate(zip(boxes, labels, strict=True)):
                one = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": ids[label], "bbox": box}
                one |= {"area": float(areas[i]), "iscrowd": int(crowd[i])}  # an id of 0 would be no match
                annotations.append(one | ({"segmentation": packed[i]} if packed is not None else {}))
            images.append(image)
            keys.append(str(example.get("key", f"picture {place}")))
        return cls({"images": images, "annotations": annotations, "categories": categories}, tuple(keys))

    @property
    def image_ids(self) -> list[int]:
        return [image["id"] for image in self.coco["images"]]

    @property
    def category_ids(self) -> list[int]:
        """The id of each label."""
        return [category["id"] for category in self.coco["categories"]]

    @property
    def federated(self) -> bool:
        return any("neg_category_ids" in image for image in self.coco["images"])

    @property
    def masked(self) -> bool:
        return all("segmentation" in one for one in self.coco["annotations"])

    def of_pictures(self) -> list[list[dict[str, Any]]]:
        """The annotations of each picture."""
        by_id = defaultdict(list)
        for one in self.coco["annotations"]:
            by_id[one["image_id"]].append(one)
        return [by_id[image] for image in self.image_ids]


def average_precision(
    truth: Truth,
    found: Sequence[Detections],
    groups: Groups | None = None,
    *,
    federated: bool | None = None,
    per_class: bool = False,
) -> dict[str, float]:
    """found: of each picture of `truth` -> AP, AP50, AP75, by size APs, APm, APl, and AR100; with masks on both sides,
    `mask/AP` and so on. LVIS's rules are for a federated truth: AR300 then, and APr, APc, APf by its frequencies.

    Each group of classes has AP/<group>, AP50/<group>, AP75/<group>; `per_class` adds AP/class/<name>. A class without
    a true box does not count, and a number over nothing (no small box, no class of the group) is left out.
    ValueError for NaN and other detections that mean nothing, with the picture; and where nothing is to be found.
    """
    federated = truth.federated if federated is None else federated
    if federated and not truth.federated:
        raise ValueError("federated: the data does not say which classes its pictures were not labelled for")
    _check_groups(groups, truth)
    _check_found(truth, found)
    if federated:
        found = _counting(truth, found)
    results = to_results(found, truth.image_ids, truth.category_ids)
    kinds = {"": ("bbox", "segmentation")}
    if truth.masked and any("masks" in one for one in found):
        kinds["mask/"] = ("segm", "bbox")  # without its box the mask's own area says how large it is
    values: dict[str, float] = {}
    for prefix, (kind, unused) in kinds.items():
        alone = [{name: value for name, value in one.items() if name != unused} for one in results]
        precision, recall = _counted(truth, alone, kind, federated)
        measured = _means(truth, precision, recall, groups or {}, federated, per_class)
        values |= {f"{prefix}{name}": value for name, value in measured.items()}
    return values


def _counted(
    truth: Truth, results: list[dict[str, Any]], kind: str, federated: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The official tables, -1 where there is nothing to find: precision [IoU recall label size], recall [IoU label
    size]."""
    from faster_coco_eval import COCO, COCOeval_faster

    coco = dict(truth.coco)  # the evaluator writes into annotations, and asks for frequencies, which we mean over
    coco["annotations"] = [dict(one) for one in coco["annotations"]]
    coco["categories"] = [{**category, "frequency": FREQUENCIES[0]} for category in coco["categories"]]
    to_find = COCO(coco)
    evaluator = COCOeval_faster(
        to_find, to_find.loadRes(results), kind, lvis_style=federated, print_function=lambda *_: None
    )
    evaluator.params.maxDets = [MOST_FEDERATED if federated else MOST]
    evaluator.evaluate()
    evaluator.accumulate()
    place = np.argsort(np.argsort(truth.category_ids))  # its tables are in the order of ids
    precision, recall = (evaluator.eval[name][..., 0] for name in ("precision", "recall"))
    return precision[:, :, place], recall[:, place]


def _means(
    truth: Truth,
    precision: npt.NDArray[np.float64],
    recall: npt.NDArray[np.float64],
    groups: Groups,
    federated: bool,
    per_class: bool,
) -> dict[str, float]:
    at = {"AP": precision, "AP50": precision[:1], "AP75": precision[5:6]}
    categories = truth.coco["categories"]
    cuts = {name: table[..., 0] for name, table in at.items()}
    cuts |= {f"AP{size}": precision[..., i] for i, size in enumerate(SIZES) if size}
    if federated:
        for one in FREQUENCIES:
            cuts[f"AP{one}"] = precision[:, :, [c.get("frequency") == one for c in categories], 0]
    cuts[f"AR{MOST_FEDERATED if federated else MOST}"] = recall[..., 0]
    for group, labels in groups.items():
        cuts |= {f"{name}/{group}": table[:, :, sorted(set(labels)), 0] for name, table in at.items()}
    if per_class:
        names = [category["name"].replace("/", " or ") for category in categories]
        for label, name in enumerate(names):
            name = name if names.count(name) == 1 else f"{name} ({categories[label]['id']})"
            cuts[f"AP/class/{name}"] = precision[:, :, label, 0]
    kept = {name: values[values > -1] for name, values in cuts.items()}
    return {name: float(values.mean()) for name, values in kept.items() if values.size}


def _counting(truth: Truth, found: Sequence[Detections]) -> list[Detections]:
    """What LVIS counts: of the best of a picture, those of classes that somebody has looked for in it."""
    label_of, kept = {category: label for label, category in enumerate(truth.category_ids)}, list[Detections]()
    for one, image, own in zip(found, truth.coco["images"], truth.of_pictures(), strict=True):
        known = {*image["neg_category_ids"], *(annotation["category_id"] for annotation in own)}
        best = one["scores"].argsort(descending=True, stable=True)[:MOST_FEDERATED]
        rows = best[torch.isin(one["labels"][best], torch.tensor([label_of[category] for category in known]).long())]
        some = {name: one[name][rows] for name in ("boxes", "scores", "labels")}
        if (masks := one.get("masks")) is not None:
            some["masks"] = masks[rows] if isinstance(masks, Tensor) else [masks[row] for row in rows.tolist()]
        kept.append(some)
    return kept


def recall(truth: Truth, proposals: Sequence[Tensor], k: int, groups: Groups | None = None) -> dict[str, float]:
    """proposals: [n 4] of each picture, the best first -> R@k, the share of true boxes that one of the first k overlaps
    by an IoU of at least 0.5, whatever its class; R@k/<group> of those of each group. Crowds are not asked for."""
    from torchvision.ops import box_iou

    _check_groups(groups, truth)
    _check_found(truth, [{"boxes": boxes} for boxes in proposals])
    of_id = {category: label for label, category in enumerate(truth.category_ids)}
    labels, hits = list[int](), list[bool]()
    for own, boxes in zip(truth.of_pictures(), proposals, strict=True):
        own = [one for one in own if not one["iscrowd"]]
        true = torch.tensor([one["bbox"] for one in own], dtype=torch.float64).reshape(-1, 4)
        true[:, 2:] += true[:, :2]
        hits += (box_iou(true, boxes[:k].cpu().double()) >= 0.5).any(1).tolist()
        labels += [of_id[one["category_id"]] for one in own]
    values = {f"R@{k}": sum(hits) / len(hits)}
    for group, members in (groups or {}).items():
        some = [hit for hit, label in zip(hits, labels, strict=True) if label in set(members)]
        values |= {f"R@{k}/{group}": sum(some) / len(some)} if some else {}
    return values


def _check_groups(groups: Groups | None, truth: Truth) -> None:
    k = len(truth.coco["categories"])
    for group, labels in (groups or {}).items():
        if strange := [label for label in labels if not 0 <= label < k]:
            raise ValueError(f"groups.{group}: the data has {k} classes, and no label {strange[0]}")


def _check_found(truth: Truth, found: Sequence[Detections]) -> None:
    """ValueError for what cannot be counted, with the picture."""
    if all(one["iscrowd"] for one in truth.coco["annotations"]):
        raise ValueError("the data has no true box, so nothing is to be found")
    if len(found) != len(truth.keys):
        raise ValueError(f"there are {len(truth.keys)} pictures, and detections of {len(found)}")
    k = len(truth.coco["categories"])
    masked = any("masks" in one for one in found)
    for key, one, image in zip(truth.keys, found, truth.coco["images"], strict=True):
        n = len(one["boxes"])
        for name in one.keys() & {"scores", "labels", "masks"}:
            if len(one[name]) != n:
                raise ValueError(f"{key}: {n} boxes were found, with {len(one[name])} {name}")
        for name in ("boxes", "scores"):
            if name in one and not one[name].isfinite().all():
                raise ValueError(f"{key}: the {name} found are not all finite; has the model diverged?")
        boxes = one["boxes"].reshape(-1, 4)
        if (boxes[:, 2:] < boxes[:, :2]).any():
            raise ValueError(f"{key}: a box found ends before it begins; boxes are x0 y0 x1 y1")
        labels = one.get("labels", torch.empty(0))
        if ((labels < 0) | (labels >= k)).any():
            raise ValueError(f"{key}: labels found go from {labels.min()} to {labels.max()}; the data has {k} classes")
        if masked and n and "masks" not in one:
            raise ValueError(f"{key}: no masks were found, though other pictures have some")
        if masked and n and "height" in image:
            sizes = {tuple(mask["size"]) if isinstance(mask, dict) else tuple(mask.shape) for mask in one["masks"]}
            if sizes != {(image["height"], image["width"])}:
                size = f"{image['height']} x {image['width']}"
                raise ValueError(f"{key}: masks found of {sorted(sizes)} pixels; the picture has {size}")
