from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image

from pictura.config import load
from pictura.evaluation.accuracy import Accuracy, AccuracyConfig
from pictura.evaluation.base import EvaluatorConfig
from pictura.evaluation.embed import Embedder
from pictura.evaluation.report import write_report
from pictura.models.classifier import Classifier, ClassifierConfig
from pictura.models.vit import ViTConfig
from tests.evaluation.conftest import Made

NAMES = ("dog", "cat", "house", "tree", "bird", "boat", "car")
LABELS = [i * i % 7 for i in range(30)]


def made(names: tuple[str, ...] = NAMES, classes: int = 7) -> Classifier:
    """Random, its head too; biases that favour the classes equally, so that answers differ from picture to picture."""
    torch.manual_seed(0)
    tower = ViTConfig(image_size=32, patch_size=16, width=32, depth=2, heads=2)
    model = ClassifierConfig(image=tower, classes=classes, class_names=names, crop=0.9).build()
    if model.head is not None:
        torch.nn.init.normal_(model.head.weight)
    return model.eval()


def test_numbers_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    model, source = made(), Made(30, labels=LABELS, names=NAMES, broken=[4])
    embedder = Embedder(model, None, batch_size=4)
    evaluator = Accuracy(source, name="made")
    values = dict(evaluator.run(embedder))
    rows, of = [], [label for i, label in enumerate(LABELS) if i != 4]
    with torch.no_grad():
        for i in range(30):
            if i != 4:
                pixels = embedder.view(np.asarray(source[i]["image"]), np.random.default_rng(0))
                rows.append(model.classify(pixels[None])[0])
    orders = [row.argsort(descending=True).tolist() for row in rows]
    right = [order[0] == label for order, label in zip(orders, of, strict=True)]
    recalls = [np.mean([hit for hit, label in zip(right, of, strict=True) if label == c]) for c in set(of)]
    assert values == {
        "accuracy/made/top1": pytest.approx(np.mean(right)),
        "accuracy/made/top5": pytest.approx(np.mean([b in a[:5] for a, b in zip(orders, of, strict=True)])),
        "accuracy/made/mean_per_class": pytest.approx(np.mean(recalls)),
        "accuracy/made/loss": pytest.approx(float(F.cross_entropy(torch.stack(rows), torch.tensor(of))), rel=1e-5),
    }
    assert 0 < values["accuracy/made/top1"] < 1
    write_report(tmp_path / "r.html", title="t", metrics=values, panels=evaluator.panels())


def test_its_answers_are_timms() -> None:
    """timm's own model with the same weights, behind timm's own transform, picture by picture."""
    model, source = made(), Made(30, labels=LABELS, names=NAMES)
    peer = timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=32, depth=2, num_heads=2, num_classes=7)
    peer.load_state_dict({name.removeprefix("image."): tensor for name, tensor in model.state_dict().items()})
    read = timm.data.create_transform(32, crop_pct=0.9, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
    pictures = torch.stack([read(Image.fromarray(np.asarray(source[i]["image"]))) for i in range(30)])
    with torch.no_grad():
        scores = peer.eval()(pictures)
    evaluator = Accuracy(source)
    values = dict(evaluator.run(Embedder(model, None, batch_size=8)))
    assert values["accuracy/top1"] == pytest.approx(float((scores.argmax(1) == torch.tensor(LABELS)).double().mean()))
    assert values["accuracy/loss"] == pytest.approx(float(F.cross_entropy(scores, torch.tensor(LABELS))), rel=1e-4)
    assert torch.equal(evaluator.outcome[2], scores.argmax(1))
    assert len(scores.argmax(1).unique()) > 1


def test_names_in_another_order_change_nothing() -> None:
    embedder = Embedder(made(), None)
    order = [3, 0, 6, 1, 5, 2, 4]  # where each of the model's classes stands in the data
    shuffled = tuple(NAMES[order.index(place)] for place in range(7))
    same = Accuracy(Made(30, labels=LABELS, names=NAMES))
    other = Accuracy(Made(30, labels=[order[label] for label in LABELS], names=shuffled))
    assert dict(same.run(embedder)) == dict(other.run(embedder))
    assert same.names == other.names == NAMES
    assert torch.equal(same.confusion(), other.confusion())


def test_bare_numbers_are_taken_as_they_are() -> None:
    """Of the data, of the model, or of both."""
    named, numbers = Made(30, labels=LABELS, names=NAMES), Made(30, labels=LABELS)
    wanted = dict(Accuracy(named).run(Embedder(made(), None)))
    for model, source in ((made(), numbers), (made(()), named), (made(()), numbers)):
        evaluator = Accuracy(source)
        assert dict(evaluator.run(Embedder(model, None))) == wanted
        either = model.config.class_names or source.class_names
        assert evaluator.names == (either or tuple("0123456"))


@pytest.mark.parametrize(
    ("source", "model", "said"),
    [
        (Made(2, labels=[0, 1], names=("dog", "fish")), made(), "^accuracy: the data has 2 classes and the model 7"),
        (Made(2, labels=[0, 1], names=("dog", "fish")), made(()), "^accuracy: the data has 2 classes and the model 7"),
        (Made(2, labels=[0, 7]), made(), "label 7 in the data, but there are 7"),
        (Made(2, labels=[0, 1]), made((), 0), r"this model \(classifier\) has no head"),
    ],
)
def test_mistakes_are_named(source: Made, model: Classifier, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dict(Accuracy(source).run(Embedder(model, None)))


def test_a_clip_has_no_head(embedder: Embedder) -> None:
    with pytest.raises(ValueError, match=r"this model \(clip\) has no head.*labels in words.*`probe`"):
        dict(Accuracy(Made(2, labels=[0, 1])).run(embedder))


def test_a_fresh_head_of_zeros_is_never_right() -> None:
    model = made()
    assert model.head is not None
    torch.nn.init.zeros_(model.head.weight)
    values = dict(Accuracy(Made(30, labels=LABELS, names=NAMES)).run(Embedder(model, None)))
    assert values["accuracy/top1"] == values["accuracy/mean_per_class"] == 0
    assert values["accuracy/loss"] == pytest.approx(np.log(7))


def test_a_recipe_names_it_by_kind() -> None:
    scenes = {"kind": "scenes", "gives": ["image", "label"], "objects": [1, 1], "count": 6, "label_of": "shape"}
    config = load(EvaluatorConfig, {"kind": "accuracy", "name": "shape", "data": scenes})
    assert isinstance(config, AccuracyConfig)
    assert config.build().title == "accuracy/shape"
    with pytest.raises(ValueError, match="accuracy: the data has no label"):
        load(EvaluatorConfig, {"kind": "accuracy", "data": scenes | {"gives": ["image"]}}).build()
