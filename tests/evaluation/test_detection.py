"""A detector measured, asked and drawn: boxes in the pixels of the pictures as they came, and official numbers."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou

from pictura.config import load
from pictura.data.partly import PartlyLabelledConfig
from pictura.data.placement import Placement
from pictura.data.scenes import ScenesConfig
from pictura.data.source import Example, Source, SourceConfig
from pictura.data.text import Tokenizer
from pictura.evaluation.average_precision import Truth, average_precision
from pictura.evaluation.base import EvaluatorConfig, measure
from pictura.evaluation.crops import embedded
from pictura.evaluation.detect import looking, proposed, vocabulary
from pictura.evaluation.detection import CLASSES, Detection, DetectionConfig, by_class, compared
from pictura.evaluation.drawing import SIDE, colour
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Gallery, Table
from pictura.evaluation.ready import Pictura
from pictura.models.clip import CLIP
from pictura.models.vild import ViLD, ViLDConfig
from pictura.models.vild_finding import Query
from pictura.prepare import name_classes
from pictura.weights.initial import inherited, started
from tests.data.files import shared
from tests.evaluation.test_average_precision import NAMES as MADE
from tests.evaluation.test_average_precision import made
from tests.models.test_vild import SMALL, pictures, small
from tests.test_docs import recipe_of

WORLD = ScenesConfig(count=6, image_size=64, gives=("image", "boxes"), label_of="shape", seed=3)
NAMES = ("star", "ring", "bolt")


class Photographs(Source):
    """Pictures that are larger than the model sees them, one of them upright."""

    provides = frozenset({"image", "boxes", "labels", "crowd"})
    class_names = NAMES
    sizes = ((96, 160), (200, 90), (64, 64))

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Example:
        image = pictures(self.sizes[index])[0].permute(1, 2, 0).numpy()
        boxes = np.array([[5, 6, 40, 50], [30, 20, 60, 64]], np.float32)
        return Example(key=f"p{index}", image=image, boxes=boxes, labels=np.array([0, 2]), crowd=np.zeros(2, bool))


def test_boxes_are_in_pixels_of_the_picture_as_it_came() -> None:
    model, source = small(), Photographs()
    embedder = Embedder(model, None)
    view, given = embedder.view, [source[i]["image"] for i in range(3)]
    found = Pictura(model, None, torch.device("cpu")).detect(given, threshold=0.0)
    for one, image in zip(found, given, strict=True):
        seen = view(Image.fromarray(image), np.random.default_rng(0))  # type: ignore[arg-type]
        with torch.inference_mode():
            own = model.detect([seen])[0]
        height, width = image.shape[:2]  # type: ignore[union-attr]
        scale = torch.tensor([width / seen.shape[2], height / seen.shape[1]] * 2)
        assert scale.min() >= 1 and len(own["boxes"])
        assert (one["boxes"] - own["boxes"] * scale).abs().max() < 1e-2  # type: ignore[operator]
        assert [NAMES[label] for label in own["labels"].tolist()] == one["text_labels"]


def test_what_is_told_is_the_best_above_the_threshold() -> None:
    ready, image = Pictura(small(masks=True), None, torch.device("cpu")), Photographs()[0]["image"]
    every = ready.detect([image], threshold=0.0)[0]
    least = float(every["scores"][6])
    some = ready.detect([image], threshold=least, most=4)[0]
    for key in ("boxes", "scores", "labels", "masks", "text_labels"):
        assert len(some[key]) == 4
        assert (torch.as_tensor(some[key] == every[key][:4])).all()
    assert len(ready.detect([image], threshold=least)[0]["scores"]) == 7
    assert len(ready.detect([image], threshold=1)[0]["masks"]) == 0
    for wrong, says in (
        ({"threshold": 1.1}, "threshold: 1.1"),
        ({"most": 0}, "most: 0"),
        ({"names": "star"}, "names: 'star' is one"),
    ):
        with pytest.raises(ValueError, match=says):
            ready.detect([image], **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"images: .* give a list"):
        ready.detect(Image.new("RGB", (8, 8)))  # type: ignore[arg-type]


def test_the_evaluator_gives_the_official_numbers() -> None:
    model, source = small(), Photographs()
    values = dict(Detection(source, DetectionConfig(data=WORLD)).run(Embedder(model, None)))
    found = Pictura(model, None, torch.device("cpu")).detect([source[i]["image"] for i in range(3)], threshold=0.0)
    examples: list[Any] = [source[i] for i in range(3)]
    wanted = average_precision(Truth.of(examples, NAMES), found)
    assert values == pytest.approx({f"detection/{name}": value for name, value in wanted.items()}, abs=1e-9)
    assert {"detection/AP", "detection/AP50", "detection/AR100"} <= set(values)


def test_masks_are_measured_where_both_have_them() -> None:
    masked = ScenesConfig(count=3, image_size=64, gives=("image", "boxes", "masks"), label_of="shape", seed=3)
    names = ("star", "ring", "bolt", *(name for name in masked.build().class_names if name not in NAMES))
    model = small(masks=True, class_names=names)
    values = dict(DetectionConfig(data=masked).build().run(Embedder(model, None)))
    source: Any = masked.build()
    found = Pictura(model, None, torch.device("cpu")).detect(
        [source[i]["image"] for i in range(3)], source.class_names, threshold=0.0
    )
    wanted = average_precision(Truth.of([source[i] for i in range(3)], source.class_names), found)
    assert "mask/AP" in wanted
    assert values == pytest.approx({f"detection/{name}": value for name, value in wanted.items()}, abs=1e-9)
    plain = dict(DetectionConfig(data=WORLD).build().run(Embedder(model, None)))
    assert not any("mask" in name for name in plain)


def named(clip: CLIP, tokenizer: Tokenizer, *names: str) -> tuple[ViLD, Embedder]:
    """A detector that reads texts as a CLIP does."""
    config = started(clip.config, ViLDConfig(image=SMALL, width=16, class_names=names, proposals=30), 64)
    assert isinstance(config, ViLDConfig)
    torch.manual_seed(0)
    model = config.build()
    model.load_state_dict(inherited(clip, config, model))
    name_classes(model, config, Embedder(clip, tokenizer))
    return model.eval(), Embedder(model, tokenizer)


def test_base_and_novel_classes_are_told_apart(model: CLIP, tokenizer: Tokenizer) -> None:
    detector, embedder = named(model, tokenizer, "star", "ring")
    values = measure({"d": DetectionConfig(data=WORLD).build()}, embedder)
    assert {"detection/AP/base", "detection/AP/novel", "detection/AP50/novel"} <= set(values)
    closed = PartlyLabelledConfig(of=WORLD, classes=("star", "ring"))
    values = measure({"d": DetectionConfig(data=closed, name="x").build()}, embedder)
    assert "detection/x/AP" in values and "detection/x/AP/base" not in values, "there is nothing novel"
    vectors, trained = vocabulary(embedder, ("a_red_star", "star", "ring"))
    assert trained.tolist() == [False, True, True] and vectors.shape == (3, detector.config.embed_dim)
    config = DetectionConfig(data=WORLD, novel=("star",), recall=5)
    values = dict(config.build().run(embedder))
    assert {"detection/AP/novel", "detection/proposals/R@5", "detection/proposals/R@5/novel"} <= set(values)
    source: Any = WORLD.build()
    regions = [one["boxes"] for one, _, _ in proposed(embedder, WORLD.build())]
    star, own = source.class_names.index("star"), []
    for i in range(6):
        true = torch.from_numpy(source[i]["boxes"])[torch.from_numpy(source[i]["labels"]) == star]
        own += (box_iou(true, regions[i][:5]) >= 0.5).any(1).tolist()
    assert values["detection/proposals/R@5/novel"] == pytest.approx(sum(own) / len(own))
    with pytest.raises(ValueError, match="novel: the data has no class 'stair'"):
        DetectionConfig(data=WORLD, novel=("stair",)).build()
    with pytest.raises(ValueError, match="recall: 0"):
        DetectionConfig(data=WORLD, recall=0)
    texts = torch.from_numpy(Pictura(model, tokenizer, torch.device("cpu")).embed_texts(["a red star", "star", "ring"]))
    assert (vectors - texts).abs().max() < 1e-5, "as people say it, known or not"


@torch.inference_mode()
@pytest.mark.parametrize("objectness", [False, True])
def test_a_teacher_that_looks_itself_is_a_head(model: CLIP, tokenizer: Tokenizer, objectness: bool) -> None:
    """CLIP on cropped regions, against a loop over regions."""
    detector, embedder = named(model, tokenizer, "star", "ring")
    teacher, image = Embedder(model.eval(), tokenizer), pictures((64, 64))[0]
    classes, trained = vocabulary(embedder, ("star", "ring", "drop"))
    ask = {"teacher": looking(embedder, teacher), "objectness": objectness}
    found = detector.detect([image], Query(classes, trained, by="picture", **ask))[0]  # type: ignore[arg-type]
    proposed = detector.propose([image])[0]
    scores = []
    for box, likely in zip(proposed["boxes"], proposed["scores"].tolist(), strict=True):
        (vector,) = embedded(teacher, [(image, box[None])])
        chance = (embedder.scale * vector[0] @ classes.T).softmax(0).tolist()
        scores += [(p * likely) ** 0.5 if objectness else p for p in chance]
    assert float(found["scores"][0]) == pytest.approx(max(scores), abs=1e-5)
    assert all(min(abs(score - other) for other in scores) < 1e-5 for score in found["scores"].tolist())
    words = detector.detect([image], Query(classes, trained, by="words"))[0]["scores"]
    both = detector.detect([image], Query(classes, trained, **ask))[0]["scores"]  # type: ignore[arg-type]
    assert not torch.equal(words[:5], both[:5])


@pytest.mark.parametrize(
    ("names", "says"),
    [(("star", "star"), "'star' is there twice"), (("cup",), "not trained on 'cup'; it finds")],
)
def test_names_that_cannot_be(names: tuple[str, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Pictura(small(), None, torch.device("cpu")).detect([np.zeros((64, 64, 3), np.uint8)], names)
    with pytest.raises(ValueError, match="names: none given"):
        vocabulary(Embedder(small(class_names=()), None), ())


def test_other_models_and_other_data_are_refused(model: CLIP) -> None:
    with pytest.raises(ValueError, match="finds no things in pictures; train a vild"):
        DetectionConfig(data=WORLD).build().check(model)
    with pytest.raises(ValueError, match="detection: the data has no boxes"):
        DetectionConfig(data=ScenesConfig(count=2)).build()
    with pytest.raises(ValueError, match=r"gone\.png"):
        Pictura(small(), None, torch.device("cpu")).detect([Path("gone.png")])


def test_a_report_shows_what_is_found_and_how_well_each_class_is() -> None:
    world = replace(WORLD, count=11, gives=("image", "boxes", "masks"))
    names = world.build().class_names
    detection = DetectionConfig(data=world, novel=("star",)).build()
    assert detection.panels() == []
    for _ in range(2):  # of the latest run
        values = dict(detection.run(Embedder(small(masks=True, class_names=names), None, batch_size=4)))
    assert not any("class" in name for name in values)
    drawn, table = detection.panels()
    assert isinstance(drawn, Gallery) and isinstance(table, Table)
    ((_, shown),) = drawn.rows
    assert [picture.image.size for picture in shown if picture.image] == [(SIDE, SIDE)] * 9
    assert all(1 <= len(picture.lines) <= 7 for picture in shown)
    assert table.columns == ["class", "AP", "mask AP", "training", "true boxes"]
    source: Any = world.build()
    there = Counter(names[label] for i in range(11) for label in source[i]["labels"])
    assert {row[0]: row[-1] for row in table.rows} == there
    assert {row[0] for row in table.rows if row[3] == "novel"} == {"star"}
    detection.classes = [{"class": i} for i in range(CLASSES + 5)]
    table = detection.panels()[1]
    assert isinstance(table, Table) and "20 best and the 20 worst of 45" in table.note
    assert [i for (i,) in table.rows] == [*range(20), *range(25, 45)]


def test_the_precision_of_all_is_the_mean_of_that_of_the_classes_listed() -> None:
    examples, found = made(0, masks=True)
    truth, groups = Truth.of(examples, MADE), {"base": [0, 2, 4], "novel": [1, 3]}
    measured = average_precision(truth, found, groups, per_class=True)
    rows = by_class(measured, truth, {"dog", "car/van"})
    best: list[Any] = [row["class"] for row in rows]
    assert set(best) == {"cat", "dog", "cup", "car/van"}, "there never is a unicorn"
    assert best == sorted(best, key=lambda name: -measured[f"AP/class/{name.replace('/', ' or ')}"])
    for prefix in ("", "mask "):
        of = [(float(str(row[f"{prefix}AP"])), row["training"]) for row in rows]
        for group in ("base", "novel"):
            mean = np.mean([ap for ap, own in of if own == group])
            assert mean == pytest.approx(measured[f"{prefix.replace(' ', '/')}AP/{group}"], abs=6e-4)
        assert np.mean([ap for ap, _ in of]) == pytest.approx(measured[f"{prefix.replace(' ', '/')}AP"], abs=6e-4)
    assert 0.1 < measured["AP"] < 0.9
    assert "training" not in by_class(measured, truth, None)[0]


def test_in_words_and_colours_what_is_right_and_what_missed() -> None:
    def boxes(*some: list[float]) -> torch.Tensor:
        return torch.tensor(some, dtype=torch.float32)

    found = {
        "boxes": boxes([20, 20, 60, 60], [100, 20, 140, 60], [100, 70, 140, 110], [160, 70, 200, 110]),
        "scores": torch.tensor([0.9, 0.5, 0.2, 0.05]),
        "labels": torch.tensor([0, 0, 1, 2]),
    }
    batch: dict[str, Any] = {
        "image": torch.full((1, 3, 60, 120), 128, dtype=torch.uint8),  # of a picture of 120 x 240
        "boxes": [
            np.array([[22, 20, 60, 60], [100, 70, 140, 110], [160, 70, 200, 110], [200, 10, 230, 30]], np.float32)
        ],
        "labels": [np.array([0, 2, 2, 1])],
        "crowd": [np.array([False, False, False, True])],
        "placement": [Placement((60, 120), (0.5, 0.5))],
    }
    one = compared(found, batch, 0, NAMES)
    assert [(line.text, line.value, line.mark) for line in one.lines] == [
        ("star", "90 %", True), ("star", "50 %", False), ("ring", "20 %", False), ("not found: 2 × bolt", "", False)
    ]  # fmt: skip
    assert one.image is not None and one.image.size == (360, 180)
    pixels = np.asarray(one.image)
    assert tuple(pixels[89, 60]) == tuple(pixels[89, 180]) == colour(0), "their lower edges"
    assert tuple(pixels[164, 180]) == colour(1)
    missed = {tuple(pixels[y, 240]) for y in range(120, 150)}
    assert missed == {(0, 0, 0), (255, 255, 255)}, "dashes on the left edge; what is unsure is not drawn"
    assert (pixels[:46, 300:] == 128).all(), "of a crowd nothing"
    nothing = {key: value[:0] for key, value in found.items()}
    assert [line.text for line in compared(nothing, batch, 0, NAMES).lines] == ["not found: star, 2 × bolt"]
    many = boxes(*([20 * i, 0, 20 * i + 20, 20] for i in range(8)))
    found = {"boxes": many, "scores": torch.linspace(0.9, 0.2, 8), "labels": torch.zeros(8, dtype=torch.int64)}
    batch |= {"boxes": [many.numpy()], "labels": [np.zeros(8, np.int64)], "crowd": [np.zeros(8, bool)]}
    assert [line.text for line in compared(found, batch, 0, NAMES).lines] == ["star"] * 6, "the others were found too"


def test_the_split_of_coco_that_is_written_down() -> None:
    """Zareian et al. 2021: 48 classes and 17. The detector is a toy, the pictures are real."""
    folder, recipe = shared("coco-mini"), recipe_of("detection.md", "coco-48-17.yaml")
    base: Any = load(SourceConfig, recipe["data"], overrides=[f"of.path={folder / 'instances_train2017.json'}"]).build()
    config = recipe["evaluation"]["coco"]
    part = {"data": {"kind": "subset", "share": 0.3, "of": config["data"]}}  # in which some classes have no box
    path = f"data.of.of.path={folder / 'instances_val2017.json'}"
    detection = load(EvaluatorConfig, config | part, overrides=[path]).build()
    assert isinstance(detection, Detection)
    names, novel = detection.source.class_names, detection.config.novel
    assert (len(base.class_names), len(novel), names) == (48, 17, (*base.class_names, *novel))
    left = {"traffic light", "fire hydrant", "stop sign", "parking meter", "sports ball", "baseball bat", "hot dog"}
    left |= {"baseball glove", "tennis racket", "wine glass", "potted plant", "dining table", "cell phone"}
    assert {*base.source.class_names} - {*names} == left | {"teddy bear", "hair drier"}
    told = Counter(base.source.class_names[label] for i in range(80) for label in base.source.objects(i)["labels"])
    own = Counter(base.class_names[label] for i in range(80) for label in base.objects(i)["labels"])
    assert own == {name: count for name, count in told.items() if name in base.class_names}
    values = dict(detection.run(Embedder(small(class_names=names), None)))
    assert {"detection/AP", "detection/AP/base", "detection/AP/novel"} <= set(values)
    listed = {str(row["class"]): row["training"] for row in detection.classes}
    assert listed == {name: "novel" if name in novel else "base" for name in names if name in listed}
    assert 20 < len(listed) < 60 and {*novel} & {*listed}
