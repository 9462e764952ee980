"""How well things are found, by COCO's or LVIS's official average precision: in all, of the classes that had boxes in
training (base) and of those that had none (novel: ViLD, Gu et al. 2022, section 4.2)."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pictura.data.batches import Batch
from pictura.data.source import Source, SourceConfig
from pictura.evaluation.average_precision import Truth, average_precision, recall
from pictura.evaluation.base import Evaluator, EvaluatorConfig, check_reads_texts
from pictura.evaluation.coco_results import rle
from pictura.evaluation.detect import check_detects, detected, looking, proposed, vocabulary
from pictura.evaluation.drawing import beside_truth
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Gallery, Line, Panel, Picture, Table
from pictura.models.vild_finding import By, Detections, Query
from pictura.weights.foreign import load_model

OFFICIAL = ("image_ids", "category_ids", "frequencies")  # what a source in COCO's or LVIS's form says
SHOWN, MOST, LEAST = 9, 6, 0.1  # pictures in the report; things found in each of them, and their least score
CLASSES = 40  # listed there


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(EvaluatorConfig):
    """`data` needs pictures with boxes; its classes are asked for. by: of an ensemble, one of its heads, or both. Masks
    are measured where both the model and the data have them.

    novel: its classes without boxes in training, by name; by default all that the model was not trained on. recall: of
    so many proposals of a picture, the share of things that they hold, whatever these are called.
    teacher: a CLIP that looks at every region itself, in place of an ensemble's second head: by `picture` alone it is
    CLIP on cropped regions, by `ensemble` ViLD-text + CLIP. objectness: scores are geometric means with the proposals'.
    """

    kind: ClassVar[str] = "detection"

    data: SourceConfig
    by: By | None = None
    teacher: str | None = None
    objectness: bool = False
    novel: tuple[str, ...] = ()
    recall: int | None = None

    def __post_init__(self) -> None:
        if self.recall is not None and self.recall < 1:
            raise ValueError(f"recall: {self.recall} is below 1; try 100")

    def build(self) -> "Detection":
        """The evaluator, its data opened, and the teacher."""
        source, teacher = self.data.build(), None
        if self.teacher is not None:
            teacher = Embedder(*load_model(self.teacher))
            check_reads_texts(teacher.model)
        if strange := [name for name in self.novel if name not in source.class_names]:
            raise ValueError(f"novel: the data has no class {strange[0]!r}")
        return Detection(source, self, teacher)


class Detection(Evaluator):
    """Yields AP, AP50, AP75, those of small, medium and large things, AR100, and AP/base, AP/novel where both are."""

    def __init__(self, source: Source, config: DetectionConfig, teacher: Embedder | None = None) -> None:
        if missing := {"image", "boxes"} - source.provides:
            raise ValueError(f"detection: the data has no {' and no '.join(sorted(missing))}")
        self.title = f"detection/{config.name}" if config.name else "detection"
        self.source, self.config, self.teacher = source, config, teacher
        self.pictures, self.classes = list[Picture](), list[dict[str, object]]()

    def check(self, model: Any) -> None:
        check_detects(model)

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        self.check(embedder.model)
        if (teacher := self.teacher) is not None and teacher.device != embedder.device:
            model = teacher.model.to(embedder.device)
            self.teacher = Embedder(model, teacher.tokenizer, device=embedder.device)
        names, known = self.source.class_names, embedder.model.config.class_names
        masked, areas = embedder.model.masks is not None, getattr(self.source, "objects", None)
        self.pictures, self.classes = [], []
        found, examples, indices = list[dict[str, Any]](), list[dict[str, Any]](), list[int]()
        classes, trained = vocabulary(embedder, names)
        teacher = self.teacher
        query = Query(
            classes, trained, by=self.config.by, objectness=self.config.objectness,
            masks="masks" in self.source.provides,
            teacher=None if teacher is None else looking(embedder, teacher),
        )  # fmt: skip
        for told, batch, row in detected(embedder, self.source, query):
            index = int(batch["index"][row])
            example: dict[str, Any] = {
                key: batch[key][row] for key in ("key", "boxes", "labels", "crowd") if key in batch
            }
            if areas is not None:  # the file's own, by which it says what is small
                example["areas"] = areas(index)["areas"]
            if masked and "masks" in batch:  # packed: those of a whole data set fit in no memory
                example["masks"] = rle(torch.as_tensor(batch["masks"][row]))
            kept: dict[str, Any] = {key: value for key, value in told.items() if key != "masks"}
            if len(self.pictures) < SHOWN:
                self.pictures.append(compared(told, batch, row, names))
            found.append(kept | ({"masks": rle(told["masks"])} if "masks" in example else {}))
            indices.append(index)
            examples.append(example)
        official = {key: getattr(self.source, key) for key in OFFICIAL if getattr(self.source, key, None)}
        if "image_ids" in official:
            official["image_ids"] = [official["image_ids"][index] for index in indices]
        if getattr(self.source, "federated", None):
            for key in ("negatives", "not_exhaustive"):
                official[key] = [getattr(self.source, key)(index) for index in indices]
        novel = {name for name in names if (name in self.config.novel if self.config.novel else name not in known)}
        groups = {
            group: [label for label, name in enumerate(names) if (name in novel) == (group == "novel")]
            for group in ("base", "novel")
        }
        groups = groups if all(groups.values()) else {}
        truth = Truth.of(examples, names, **official)
        measured = average_precision(truth, found, groups, per_class=True)
        self.classes = by_class(measured, truth, novel if groups else None)
        for metric, value in measured.items():
            if "AP/class/" not in metric:
                yield f"{self.title}/{metric}", value
        if self.config.recall is not None:
            regions = [one["boxes"] for one, _, _ in proposed(embedder, self.source)]
            for metric, value in recall(truth, regions, self.config.recall, groups).items():
                yield f"{self.title}/proposals/{metric}", value

    def panels(self) -> list[Panel]:
        if not self.pictures:
            return []
        note = f"The first {len(self.pictures)} pictures. In colours the {MOST} best things found, of a score of "
        note += f"{100 * LEAST:.0f} % at least; dashed what is there. A tick: it overlaps a thing of its name by half."
        drawn = Gallery(f"{self.title}: what is found", [("", self.pictures)], large=True, note=note)
        rows, half, note = self.classes, CLASSES // 2, "The average precision of each class."
        if len(rows) > CLASSES:
            note = f"The average precision of the {half} best and the {half} worst of {len(rows):,} classes."
            rows = [*rows[:half], *rows[-half:]]
        columns = [*rows[0]] if rows else []
        return [drawn, Table(f"{self.title}: classes", columns, [[*row.values()] for row in rows], note=note)]


def compared(found: Detections, batch: Batch, row: int, names: Sequence[str]) -> Picture:
    """The best of what was found in a picture, drawn beside what is there; in words what is right, and what missed."""
    from torchvision.ops import box_iou  # here: this room is imported for prompts too, and torchvision takes seconds

    sure = int((found["scores"] >= LEAST).sum())
    best: dict[str, Any] = {key: value[: min(sure, MOST)] for key, value in found.items()}
    best["text_labels"] = [names[label] for label in best["labels"].tolist()]
    alone = ~torch.as_tensor(batch["crowd"][row])
    true, labels = (torch.as_tensor(batch[key][row])[alone] for key in ("boxes", "labels"))
    right = (box_iou(found["boxes"][:sure], true) >= 0.5) & (found["labels"][:sure, None] == labels)
    said = zip(best["text_labels"], best["scores"].tolist(), right.any(1).tolist(), strict=False)  # the rest is undrawn
    lines = [Line(name, f"{100 * score:.0f} %", mark) for name, score, mark in said]
    if missed := Counter(names[label] for label in labels[~right.any(0)].tolist()):
        counts = (f"{count} × {name}" if count > 1 else name for name, count in missed.items())
        lines.append(Line(f"not found: {', '.join(counts)}"))
    image = beside_truth(batch["image"][row], best, true, batch["placement"][row].whole)
    return Picture(image, lines)


def by_class(measured: Mapping[str, float], truth: Truth, novel: Collection[str] | None) -> list[dict[str, object]]:
    """Rows of a table, of the classes that have a number, the best first."""
    counts = Counter(one["category_id"] for one in truth.coco["annotations"] if not one["iscrowd"])
    rows = list[dict[str, object]]()
    for category in truth.coco["categories"]:
        name, own = category["name"], f"AP/class/{category['name'].replace('/', ' or ')}"
        aps = {"AP": own, "mask AP": f"mask/{own}"}
        if own in measured:
            row = {"class": name} | {column: f"{measured[key]:.3f}" for column, key in aps.items() if key in measured}
            row |= {} if novel is None else {"training": "novel" if name in novel else "base"}
            rows.append(row | {"true boxes": counts[category["id"]]})
    return sorted(rows, key=lambda row: str(row["AP"]), reverse=True)
