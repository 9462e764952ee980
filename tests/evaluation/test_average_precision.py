"""Average precision against the official COCOeval, and LVIS's rules against a slow reading of them."""

import copy
import io
import json
import runpy
import sys
from collections import defaultdict
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as official_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pictura.data.coco_objects import CocoObjects, CocoObjectsConfig
from pictura.evaluation import average_precision as average_precision_module
from pictura.evaluation import coco_results
from pictura.evaluation.average_precision import Truth, average_precision, recall
from pictura.evaluation.coco_results import rle, to_results

HEIGHT, WIDTH = 200, 240
NAMES = ("cat", "dog", "cup", "car/van", "unicorn")  # there never is a unicorn
IDS = (7, 3, 90, 18, 40)
STATS = {"AP": 0, "AP50": 1, "AP75": 2, "APs": 3, "APm": 4, "APl": 5, "AR100": 8}
COCO_MINI = Path(__file__).parents[3] / "shared/data/coco-mini/instances_val2017.json"


def ellipses(boxes: np.ndarray) -> torch.Tensor:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, np.maximum((boxes[:, 2:] - boxes[:, :2]) / 2, 1)
    far = [((x - mx) / hx) ** 2 + ((y - my) / hy) ** 2 for (mx, my), (hx, hy) in zip(middle, half, strict=True)]
    return torch.from_numpy(np.stack([one <= 1 for one in far]) if far else np.zeros((0, HEIGHT, WIDTH), bool))


def random_boxes(random: np.random.Generator, n: int) -> np.ndarray:
    size = 2 ** (random.uniform(3.5, 7.5, (n, 1)) + random.uniform(-0.4, 0.4, (n, 2)))
    corner = random.uniform(0, 1, (n, 2)) * np.maximum([WIDTH, HEIGHT] - size, 1)
    return np.concatenate([corner, np.minimum(corner + size, [WIDTH, HEIGHT])], 1).astype(np.float32)


def made(seed: int, pictures: int = 12, masks: bool = False, crowds: bool = True, extra: int = 4) -> tuple[list, list]:
    """True boxes, and detections: most of them moved, some named wrongly, some twice, some of nothing; many ties."""
    random = np.random.default_rng(seed)
    examples, found = [], []
    for i in range(pictures):
        k = 0 if i == 3 else int(random.integers(1, 9))
        boxes, labels = random_boxes(random, k), random.integers(0, 4, k)
        crowd = random.random(k) < 0.2 if crowds else np.zeros(k, bool)
        chosen = random.integers(0, k, k + 3) if k else np.zeros(0, int)
        near = boxes[chosen] + random.normal(0, 1, (len(chosen), 4)) * random.choice([1, 4, 12], (len(chosen), 1))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 2)
        there = np.concatenate([near.astype(np.float32), random_boxes(random, extra)])
        called = np.concatenate([labels[chosen], random.integers(0, 5, extra)])
        called = np.where(random.random(len(called)) < 0.2, random.integers(0, 5, len(called)), called)
        example = {"key": f"made/{i}", "boxes": boxes, "labels": labels, "crowd": crowd, "size": (HEIGHT, WIDTH)}
        one = {"boxes": torch.from_numpy(there), "labels": torch.from_numpy(called)}
        one["scores"] = torch.from_numpy(random.integers(1, 12, len(called)) / np.float32(12))
        if masks:
            example["masks"], one["masks"] = ellipses(boxes).numpy(), ellipses(there)
        examples.append(example)
        found.append(one)
    return examples, found


def as_json(examples: list, image_ids: list[int]) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for image, example in zip(image_ids, examples, strict=True):
        for i, (x0, y0, x1, y1) in enumerate(example["boxes"].astype(float).tolist()):
            one = {"id": len(annotations) + 1, "image_id": image, "category_id": IDS[example["labels"][i]]}
            one |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
            one["iscrowd"] = int(example["crowd"][i])
            if "masks" in example:
                one["segmentation"] = official_mask.encode(np.asfortranarray(example["masks"][i].astype(np.uint8)))
                one["area"] = int(example["masks"][i].sum())
            annotations.append(one)
    images = [{"id": image, "height": HEIGHT, "width": WIDTH} for image in image_ids]
    categories = [{"id": id, "name": name} for id, name in zip(IDS, NAMES, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def official(truth: dict[str, Any], results: list[dict[str, Any]], kind: str = "bbox") -> COCOeval:
    with redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), kind)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def results_of(found: list, image_ids: list[int]) -> list[dict[str, Any]]:
    """The JSON form by a loop."""
    results = []
    for image, one in zip(image_ids, found, strict=True):
        for i, (x0, y0, x1, y1) in enumerate(one["boxes"].double().tolist()):
            result = {"image_id": image, "category_id": IDS[one["labels"][i]], "score": float(one["scores"][i])}
            results.append(result | {"bbox": [x0, y0, x1 - x0, y1 - y0]})
    return results


def matches(values: dict[str, float], stats: np.ndarray, prefix: str = "") -> None:
    """All of COCO's numbers, to 1e-9; those that it calls -1 are not there."""
    for name, place in STATS.items():
        assert values.get(f"{prefix}{name}", -1.0) == pytest.approx(stats[place], abs=1e-9), name


@pytest.mark.parametrize("seed", range(4))
def test_boxes_score_as_by_the_official_code(seed: int) -> None:
    examples, found = made(seed)
    image_ids = np.random.default_rng(seed).permutation(1000)[: len(examples)].tolist()
    values = average_precision(Truth.of(examples, NAMES, image_ids=image_ids, category_ids=IDS), found)
    evaluator = official(as_json(examples, image_ids), results_of(found, image_ids))
    assert 0.05 < evaluator.stats[0] < 0.95
    matches(values, evaluator.stats)
    assert values.keys() == STATS.keys()


@pytest.mark.parametrize("packed", [False, True])
def test_masks_score_as_by_the_official_code(packed: bool) -> None:
    examples, found = made(5, masks=True)
    image_ids = list(range(1, len(examples) + 1))
    results = results_of(found, image_ids)
    masks = [mask for one in found for mask in one["masks"].numpy()]
    by_mask = [{name: one[name] for name in ("image_id", "category_id", "score")} for one in results]
    for one, mask in zip(by_mask, masks, strict=True):
        one["segmentation"] = official_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    if packed:
        found = [{**one, "masks": rle(one["masks"])} for one in found]
    values = average_precision(Truth.of(examples, NAMES, category_ids=IDS), found)
    truth = as_json(examples, image_ids)
    stats = official(truth, by_mask, "segm").stats
    matches(values, official(truth, results).stats)
    matches(values, stats, "mask/")
    assert values["mask/AP"] != values["AP"] and 0.05 < stats[3] < 0.95
    assert "mask/AP" not in average_precision(Truth.of(made(5)[0], NAMES), found), "the truth has no masks"
    bare = [{name: one[name] for name in ("boxes", "scores", "labels")} for one in found]
    assert "mask/AP" not in average_precision(Truth.of(examples, NAMES), bare)


def test_groups_and_classes_are_means_of_the_official_table() -> None:
    examples, found = made(6)
    image_ids = list(range(1, len(examples) + 1))
    groups = {"base": (0, 3), "novel": [1, 4], "myths": {4}}
    truth = Truth.of(examples, NAMES, category_ids=IDS)
    values = average_precision(truth, found, groups, per_class=True)
    evaluator = official(as_json(examples, image_ids), results_of(found, image_ids))
    table = evaluator.eval["precision"][:, :, :, 0, 2]  # [IoU recall category], categories in the order of their ids
    of = {id: table[:, :, place] for place, id in enumerate(evaluator.params.catIds)}
    for label, name in enumerate(["cat", "dog", "cup", "car or van"]):
        assert values[f"AP/class/{name}"] == pytest.approx(of[IDS[label]].mean(), abs=1e-9)
    base = (of[IDS[0]] + of[IDS[3]]) / 2
    assert values["AP/base"] == pytest.approx(base.mean(), abs=1e-9)
    assert values["AP50/base"] == pytest.approx(base[0].mean(), abs=1e-9)
    assert values["AP75/base"] == pytest.approx(base[5].mean(), abs=1e-9)
    assert values["AP/novel"] == values["AP/class/dog"], "nothing is asked of the unicorn"
    assert not {"AP/myths", "AP/class/unicorn"} & values.keys()
    matches(values, evaluator.stats)


def test_classes_of_one_name_are_told_apart_by_id() -> None:
    examples, found = made(6)
    truth = Truth.of(examples, ("cat", "dog", "cat", "car", "cow"), category_ids=IDS)
    values = average_precision(truth, found, per_class=True)
    one, other = values["AP/class/cat (7)"], values["AP/class/cat (90)"]
    assert one != other and "AP/class/cat" not in values


# LVIS, read slowly from section 3 of its paper and COCO's description of the metric.


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    w, h = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = max(w, 0) * max(h, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def area(box: np.ndarray) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def claims(true: list, boxes: list, threshold: float, sizes: tuple[float, float], lenient: bool) -> list[str]:
    """What each box (the best first) is: "right", "wrong", or "nothing" where it does not count."""
    outside = [not sizes[0] <= area(box) <= sizes[1] for box in true]
    taken: set[int] = set()
    said = []
    for box in boxes:
        over = {i: overlap(box, one) for i, one in enumerate(true) if i not in taken}
        best = None
        for ignored in (False, True):  # one that counts is always preferred
            fitting = {i: o for i, o in over.items() if o >= threshold and outside[i] is ignored}
            if fitting and best is None:
                best = max(fitting, key=lambda i: (fitting[i], i))
        if best is not None:
            taken.add(best)
            said.append("nothing" if outside[best] else "right")
        else:
            said.append("nothing" if lenient or not sizes[0] <= area(box) <= sizes[1] else "wrong")
    return said


def interpolated(scored: list[tuple[float, str]], to_find: int) -> float:
    """Precision at 101 recalls, each the best that is reached at that recall or a higher one."""
    scored = [one for one in sorted(scored, key=lambda one: -one[0]) if one[1] != "nothing"]
    right = np.cumsum([word == "right" for _, word in scored])
    curve = list(zip(right / to_find, right / (np.arange(len(scored)) + 1), strict=True))
    return float(np.mean([max((p for r, p in curve if r >= at), default=0) for at in np.linspace(0, 1, 101)]))


def slow_lvis(examples: list, found: list, negatives: list, unfinished: list, classes: int) -> dict[str, list[float]]:
    """[AP of each IoU] by class, and by class and size."""
    best: list[list[tuple[float, int, np.ndarray]]] = []
    for one in found:
        rows = zip(one["scores"].tolist(), one["labels"].tolist(), one["boxes"].double().numpy(), strict=True)
        best.append(sorted(rows, key=lambda row: -row[0])[:300])
    values = {}
    for name, sizes in {"": (0, 1e10), "s": (0, 1024), "m": (1024, 9216), "l": (9216, 1e10)}.items():
        for label in range(classes):
            by_iou = []
            for threshold in np.linspace(0.5, 0.95, 10):
                scored, to_find = [], 0
                for example, rows, no, open_ in zip(examples, best, negatives, unfinished, strict=True):
                    true = [b.astype(float) for b, c in zip(example["boxes"], example["labels"], strict=True)
                            if c == label]  # fmt: skip
                    to_find += sum(sizes[0] <= area(box) <= sizes[1] for box in true)
                    if true or label in no:
                        own = [row for row in rows if row[1] == label]
                        words = claims(true, [row[2] for row in own], threshold, sizes, label in open_)
                        scored += [(row[0], word) for row, word in zip(own, words, strict=True)]
                if to_find:
                    by_iou.append(interpolated(scored, to_find))
            if by_iou:
                values[f"{label}{name}"] = by_iou
    return values


@pytest.mark.parametrize("seed", range(2))
def test_a_federated_truth_scores_as_by_a_slow_reading_of_lvis(seed: int) -> None:
    examples, found = made(seed + 20, pictures=8, crowds=False, extra=30)
    random = np.random.default_rng(seed)
    crowded = {"boxes": torch.from_numpy(random_boxes(random, 400)), "scores": torch.rand(400).add(0.1)}
    crowded["labels"] = torch.from_numpy(random.integers(0, 5, 400))
    found[0] = {name: torch.cat([found[0][name], crowded[name]]) for name in found[0]}
    own = [set(example["labels"].tolist()) for example in examples]
    negatives = [[c for c in range(5) if c not in there and random.random() < 0.5] for there in own]
    unfinished = [[c for c in there if random.random() < 0.4] for there in own]
    truth = Truth.of(examples, NAMES, category_ids=IDS, frequencies="rccfr", negatives=negatives,
                     not_exhaustive=unfinished)  # fmt: skip
    assert truth.federated
    values = average_precision(truth, found, {"novel": [0, 2]}, per_class=True)
    slow = slow_lvis(examples, found, negatives, unfinished, 5)

    def mean(*names: str) -> Any:
        return pytest.approx(np.mean([slow[name] for name in names if name in slow]), abs=1e-9)

    for label, name in enumerate(["cat", "dog", "cup", "car or van"]):
        assert values[f"AP/class/{name}"] == mean(str(label))
    assert values["AP"] == mean("0", "1", "2", "3") and "AP/class/unicorn" not in values
    assert values["APr"] == mean("0") and values["APc"] == mean("1", "2") and values["APf"] == mean("3")
    assert values["AP/novel"] == mean("0", "2")
    for size in "sml":
        assert values[f"AP{size}"] == mean(*(f"{label}{size}" for label in range(4)))
    assert values["AP50"] == pytest.approx(np.mean([slow[str(label)][0] for label in range(4)]), abs=1e-9)
    assert "AR300" in values and "AR100" not in values
    plain = average_precision(truth, found, federated=False)
    assert plain["AP"] < values["AP"] and "APr" not in plain and "AR100" in plain


def test_boxes_after_the_best_300_of_a_picture_count_for_nothing_in_lvis() -> None:
    true = np.array([[10, 10, 60, 60]], np.float32)
    truth = Truth.of([{"boxes": true, "labels": [0]}], NAMES, negatives=[[1, 2]])
    for others, expected in ((299, 1.0), (300, 0.0)):
        other = {"boxes": torch.rand(others, 2).repeat(1, 2) + torch.tensor([0, 0, 9, 9]), "scores": torch.ones(others)}
        one = {name: torch.cat([values, torch.tensor(last)]) for (name, values), last in
               zip(other.items(), (true.tolist(), [0.5]), strict=True)}  # fmt: skip
        one["labels"] = torch.tensor([1 + i % 2 for i in range(others)] + [0])
        assert average_precision(truth, [one])["AP"] == expected


def test_masks_of_a_picture_in_which_nobody_has_looked_are_passed_over() -> None:
    """The evaluator itself stops with an IndexError here."""
    examples, found = made(8, masks=True, crowds=False)
    negatives: list[list[int]] = [[] for _ in examples]
    assert not len(examples[3]["labels"]) and len(found[3]["labels"])
    values = average_precision(Truth.of(examples, NAMES, negatives=negatives), found)
    del examples[3], found[3]
    assert values == average_precision(Truth.of(examples, NAMES, negatives=negatives[1:]), found)
    assert 0 < values["mask/AP"] < 1 and "APr" not in values


def test_the_truth_found_is_all_of_it() -> None:
    examples, _ = made(9, masks=True, crowds=False)
    found = [{"boxes": torch.from_numpy(one["boxes"]), "labels": torch.from_numpy(one["labels"]),
              "scores": torch.ones(len(one["labels"])), "masks": torch.from_numpy(one["masks"])}
             for one in examples]  # fmt: skip
    values = average_precision(Truth.of(examples, NAMES), found)
    assert len(values) == 2 * len(STATS) and set(values.values()) == {1.0}


def test_nothing_found_scores_zero() -> None:
    examples, _ = made(10)
    nothing = {"boxes": torch.empty(0, 4), "scores": torch.empty(0), "labels": torch.empty(0, dtype=torch.long)}
    truths = [Truth.of(examples, NAMES), Truth.of(examples, NAMES, negatives=[[]] * len(examples))]
    for truth in truths:
        values = average_precision(truth, [nothing] * len(examples), {"base": [0]})
        assert values.keys() >= {"AP", "APs", "AP/base"} and set(values.values()) == {0.0}


def test_a_size_that_no_true_box_has_is_left_out() -> None:
    truth = Truth.of([{"boxes": [[0, 0, 50, 50]], "labels": [1]}], NAMES)
    one = {"boxes": torch.tensor([[0.0, 0, 50, 50]]), "scores": torch.ones(1), "labels": torch.tensor([1])}
    values = average_precision(truth, [one])
    assert values == {"AP": 1, "AP50": 1, "AP75": 1, "APm": 1, "AR100": 1}
    given = Truth.of([{"boxes": [[0, 0, 50, 50]], "labels": [1], "areas": [99.5]}], NAMES)
    assert "APs" in average_precision(given, [one]), "an area that is given goes before the box's"


def test_measuring_prints_nothing_and_leaves_the_truth_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    examples, found = made(11, masks=True)
    truth = Truth.of(examples, NAMES, negatives=[[0, 1]] * len(examples))
    before = json.dumps(truth.coco)
    first = average_precision(truth, found)
    assert json.dumps(truth.coco) == before and average_precision(truth, found) == first
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scores": torch.tensor([float("nan"), 1])}, "made/1: the scores found are not all finite"),
        (
            {"boxes": torch.tensor([[0, 0, float("nan"), 5], [0, 0, 1, 1]])},
            "made/1: the boxes found are not all finite",
        ),
        ({"boxes": torch.tensor([[0.0, 0, 9, 5], [6, 0, 1, 1]])}, "made/1: a box found ends before it begins"),
        ({"labels": torch.tensor([0, 5])}, "made/1: labels found go from 0 to 5; the data has 5 classes"),
        ({"labels": torch.tensor([0])}, "made/1: 2 boxes were found, with 1 labels"),
        (
            {"masks": torch.ones(2, HEIGHT, 9)},
            r"made/1: masks found of \[\(200, 9\)\] pixels; the picture has 200 x 240",
        ),
        ({"masks": torch.ones(1, HEIGHT, WIDTH)}, "made/1: 2 boxes were found, with 1 masks"),
    ],
)
def test_detections_that_mean_nothing_are_refused_by_picture(change: dict[str, Any], words: str) -> None:
    examples, found = made(12, masks=True)
    good = {"boxes": torch.tensor([[0.0, 0, 9, 5], [0, 0, 1, 1]]), "scores": torch.ones(2)}
    found[1] = {**good, "labels": torch.tensor([0, 1]), "masks": torch.ones(2, HEIGHT, WIDTH).bool(), **change}
    with pytest.raises(ValueError, match=words):
        average_precision(Truth.of(examples, NAMES), found)


def test_what_cannot_be_asked_is_refused() -> None:
    examples, found = made(13, masks=True)
    truth = Truth.of(examples, NAMES)
    with pytest.raises(ValueError, match="there are 12 pictures, and detections of 11"):
        average_precision(truth, found[1:])
    with pytest.raises(ValueError, match="federated: the data does not say"):
        average_precision(truth, found, federated=True)
    with pytest.raises(ValueError, match=r"groups\.novel: the data has 5 classes, and no label 5"):
        average_precision(truth, found, {"novel": [0, 5]})
    del found[2]["masks"]
    with pytest.raises(ValueError, match="made/2: no masks were found, though other pictures have some"):
        average_precision(truth, found)
    crowd = Truth.of([{"boxes": [[0, 0, 5, 5]], "labels": [0], "crowd": [True]}], NAMES)
    with pytest.raises(ValueError, match="the data has no true box"):
        average_precision(crowd, found[:1])


@pytest.mark.parametrize("k", [1, 3, 100])
def test_recall_is_that_of_a_loop(k: int) -> None:
    examples, found = made(14)
    hits = defaultdict(list)
    for example, one in zip(examples, found, strict=True):
        for box, label, crowd in zip(example["boxes"], example["labels"], example["crowd"], strict=True):
            if not crowd:
                over = [overlap(box.astype(float), other) for other in one["boxes"].double().numpy()[:k]]
                hits[int(label)].append(max(over) >= 0.5)
    values = recall(Truth.of(examples, NAMES, category_ids=IDS), [one["boxes"] for one in found], k,
                    {"base": [0, 1], "novel": [2, 3], "myths": [4]})  # fmt: skip
    assert values == {
        f"R@{k}": pytest.approx(np.mean([hit for some in hits.values() for hit in some])),
        f"R@{k}/base": pytest.approx(np.mean(hits[0] + hits[1])),
        f"R@{k}/novel": pytest.approx(np.mean(hits[2] + hits[3])),
    }
    assert 0 < values[f"R@{k}"] < 1


def test_a_picture_without_proposals_has_no_recall() -> None:
    truth = Truth.of([{"boxes": [[0, 0, 5, 5]], "labels": [0]}, {"boxes": [[0, 0, 5, 5]], "labels": [0]}], NAMES)
    assert recall(truth, [torch.empty(0, 4), torch.tensor([[0, 0, 5, 5]])], 10) == {"R@10": 0.5}
    with pytest.raises(ValueError, match="picture 1: the boxes found are not all finite"):
        recall(truth, [torch.empty(0, 4), torch.full((1, 4), torch.nan)], 10)


@pytest.mark.skipif(not COCO_MINI.exists(), reason="../shared/data/coco-mini is not there")
def test_moved_boxes_of_coco_score_as_by_the_official_code_on_its_file(tmp_path: Path) -> None:
    source = CocoObjectsConfig(path=COCO_MINI).build()
    assert isinstance(source, CocoObjects)
    random, found = np.random.default_rng(0), []
    image_ids, ids = source.image_ids, source.category_ids
    examples = [source.objects(index) for index in range(len(source))]
    for example in examples:
        boxes, labels = example["boxes"].astype(float), example["labels"]
        moved = boxes + random.normal(0, 0.1, boxes.shape) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2])
        named = np.where(random.random(len(labels)) < 0.1, random.integers(0, 80, len(labels)), labels)
        found.append({"boxes": torch.tensor(moved, dtype=torch.float32), "labels": torch.from_numpy(named),
                      "scores": torch.from_numpy(random.random(len(labels), np.float32))})  # fmt: skip
    truth = Truth.of(examples, source.class_names, image_ids=image_ids, category_ids=ids)
    values = average_precision(truth, found)
    file = tmp_path / "results.json"
    file.write_text(json.dumps(to_results(found, image_ids, ids)))
    with redirect_stdout(io.StringIO()):
        coco = COCO(str(COCO_MINI))
        evaluator = COCOeval(coco, coco.loadRes(str(file)), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    assert 0.1 < evaluator.stats[0] < 0.9
    matches(values, evaluator.stats)


@pytest.mark.parametrize("module", [average_precision_module, coco_results])
def test_the_evaluator_is_not_imported_before_it_is_needed(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)  # importing it fails now
    assert "rle" in runpy.run_path(module.__file__)
