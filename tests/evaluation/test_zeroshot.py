from pathlib import Path

import pytest
import torch
from PIL import Image

from pictura.config import load
from pictura.data.text import Tokenizer
from pictura.evaluation.base import EvaluatorConfig
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Confusion, Gallery
from pictura.evaluation.prompts import Prompts, fill
from pictura.evaluation.report import write_report
from pictura.evaluation.zeroshot import Classifier, ZeroShot, ZeroShotConfig, classifier
from pictura.models.clip import CLIP
from tests.evaluation.conftest import Made

NAMES = ("dog", "cat", "house", "tree", "old house", "small tree", "red")
LABELS = [i * 5 % 6 for i in range(30)]  # the last class has no picture


def test_the_classifier_is_open_clips(embedder: Embedder, model: CLIP, tokenizer: Tokenizer) -> None:
    peer = pytest.importorskip("open_clip.zero_shot_classifier")

    class Theirs:
        def encode_text(self, ids: torch.Tensor, normalize: bool) -> torch.Tensor:
            return torch.nn.functional.normalize(model.encode_text(ids), dim=-1)

    templates = ("a {}", "the small photo of the {}.", "{}")
    model.eval()
    expected = peer.build_zero_shot_classifier(Theirs(), tokenizer, NAMES, templates, num_classes_per_batch=2)
    torch.testing.assert_close(classifier(embedder, NAMES, templates), expected, atol=1e-6, rtol=0)


def test_numbers_are_those_of_a_plain_loop(embedder: Embedder, tmp_path: Path) -> None:
    source = Made(30, labels=LABELS, names=NAMES, broken=[4])
    evaluator = ZeroShot(source, ("a {}", "the {}"), name="made")
    assert evaluator.panels() == []
    values = dict(evaluator.run(embedder))
    weights = classifier(embedder, NAMES, ("a {}", "the {}"))
    hits: dict[int, list[bool]] = {}
    first_five = []
    for i, label in enumerate(LABELS):
        if i != 4:
            scores = embedder.images([source[i]["image"]])[0] @ weights
            order = scores.argsort(descending=True).tolist()
            hits.setdefault(label, []).append(order[0] == label)
            first_five.append(label in order[:5])
    flat = [hit for some in hits.values() for hit in some]
    assert values == {
        "zeroshot/made/top1": pytest.approx(sum(flat) / 29),
        "zeroshot/made/top5": pytest.approx(sum(first_five) / 29),
        "zeroshot/made/mean_per_class": pytest.approx(sum(sum(some) / len(some) for some in hits.values()) / 6),
    }
    confusion = evaluator.confusion()
    assert confusion.sum() == 29
    assert int(confusion.diagonal().sum()) == sum(flat)
    write_report(tmp_path / "r.html", title="t", metrics=values, panels=evaluator.panels())


def test_panels_show_the_surest(embedder: Embedder) -> None:
    evaluator = ZeroShot(Made(30, labels=LABELS, names=NAMES), "plain")
    dict(evaluator.run(embedder))
    confusion, gallery = evaluator.panels()
    assert isinstance(confusion, Confusion) and isinstance(gallery, Gallery)
    for heading, pictures in gallery.rows:
        sure = [int(picture.lines[0].value.removesuffix(" %")) for picture in pictures]
        assert sure == sorted(sure, reverse=True)
        for picture in pictures:
            assert picture.good is ("right" in heading)
            assert [line.mark for line in picture.lines] == ([True] if picture.good else [False, True])


def test_few_classes_have_no_top5_and_no_name_no_slot(embedder: Embedder) -> None:
    evaluator = ZeroShot(Made(6, labels=[0, 1, 0, 1, 0, 1], names=("dog", "cat")))
    assert [name for name, _ in evaluator.run(embedder)] == ["zeroshot/top1", "zeroshot/mean_per_class"]


def test_a_broken_model_is_never_right(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = ZeroShot(Made(6, labels=[0] * 6, names=("dog", "cat")))
    for value in (torch.nan, 1.0):
        monkeypatch.setattr(embedder.model, "encode_image", lambda image, v=value: torch.full((len(image), 24), v))
        monkeypatch.setattr(embedder.model, "encode_text", lambda text: torch.ones(len(text), 24))
        assert set(dict(evaluator.run(embedder)).values()) == {0.0}


def test_class_names_may_be_given(embedder: Embedder) -> None:
    evaluator = ZeroShot(Made(2, labels=[0, 1], names=("n01", "n02")), class_names=("hound", "kitten"))
    assert evaluator.names == ("hound", "kitten")


@pytest.mark.parametrize(
    ("source", "names", "said"),
    [
        (Made(2), (), "no label"),
        (Made(2, labels=[0, 1]), (), "class names"),
        (Made(2, labels=[0, 1], names=("x", "y")), ("a", "b", "c"), "3 given"),
        (Made(2, labels=[0, 1]), ("crane", "crane"), "'crane' names two"),
    ],
)
def test_mistakes_are_named(source: Made, names: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ZeroShot(source, class_names=names)


def test_a_label_beyond_the_names_is_refused(embedder: Embedder) -> None:
    evaluator = ZeroShot(Made(3, labels=[0, 1, 2]), class_names=("dog", "cat"))
    with pytest.raises(ValueError, match="label 2 in the data, but there are 2"):
        dict(evaluator.run(embedder))


def test_a_recipe_names_it_by_kind() -> None:
    scenes = {"kind": "scenes", "gives": ["image", "label"], "objects": [1, 1], "count": 6, "label_of": "shape"}
    config = load(EvaluatorConfig, {"kind": "zeroshot", "name": "shape", "data": scenes, "templates": ["a {}", "{}"]})
    assert isinstance(config, ZeroShotConfig)
    assert config.templates == ("a {}", "{}")
    with pytest.raises(ValueError, match="templates"):
        load(EvaluatorConfig, {"kind": "zeroshot", "data": scenes, "templates": ["a dog"]})


def test_probabilities_averaged_and_weighted_are_those_of_a_loop(embedder: Embedder) -> None:
    prompts = Prompts(templates=("a {}", "the {}", "{}"), weights=(1, 2, 5), average="probabilities")
    x = embedder.images(Made(5))
    expected = torch.zeros(5, 2)
    for template, weight in zip(prompts.templates, (1, 2, 5), strict=True):
        own = embedder.texts([fill(template, name) for name in ("dog", "cat")])
        expected += weight / 8 * (embedder.scale * x @ own.T).softmax(1)
    asked = Classifier.of(embedder, ("dog", "cat"), prompts)
    torch.testing.assert_close((asked.scale * asked.scores(x)).softmax(1), expected)


def test_weighted_vectors_are_those_of_a_loop(embedder: Embedder) -> None:
    prompts = Prompts(templates=("a {}", "the {}"), weights=(1, 3))
    one, other = (embedder.texts([fill(t, name) for name in ("dog", "cat")]) for t in prompts.templates)
    expected = torch.nn.functional.normalize(0.25 * one + 0.75 * other, dim=1).T
    torch.testing.assert_close(Classifier.of(embedder, ("dog", "cat"), prompts).vectors[0], expected)


def test_descriptions_stand_for_the_name(embedder: Embedder) -> None:
    prompts = Prompts(templates=("a {}", "the {}"), descriptions={"dog": ("red dog", "old dog", "dog")})
    texts = [f"{article} {phrase}" for phrase in ("red dog", "old dog", "dog") for article in ("a", "the")]
    dog = torch.nn.functional.normalize(embedder.texts(texts).mean(0), dim=0)
    found = Classifier.of(embedder, ("cat", "dog"), prompts).vectors[0]
    torch.testing.assert_close(found[:, 1], dog)
    torch.testing.assert_close(found[:, :1], classifier(embedder, ("cat",), ("a {}", "the {}")))


def test_examples_stand_beside_the_words(embedder: Embedder, tmp_path: Path) -> None:
    """A multimodal prompt: words with a picture of what is meant."""
    for i in range(2):
        Image.fromarray(Made(2)[i]["image"]).save(tmp_path / f"{i}.png")
    paths = (tmp_path / "0.png", tmp_path / "1.png")
    found = Classifier.of(embedder, ("cat", "dog"), Prompts(examples={"dog": paths}, share=0.3)).vectors[0]
    shown = torch.nn.functional.normalize(embedder.images(paths).mean(0), dim=0)
    dog = torch.nn.functional.normalize(0.3 * embedder.texts("dog")[0] + 0.7 * shown, dim=0)
    torch.testing.assert_close(found[:, 1], dog)
    with pytest.raises(ValueError, match="'bird' is none of the classes"):
        Classifier.of(embedder, ("cat", "dog"), Prompts(examples={"bird": paths}))


def test_the_nearest_class_but_one(embedder: Embedder) -> None:
    asked = Classifier.of(embedder, NAMES, Prompts(templates=("a {}", "the {}"), average="probabilities"))
    x, but = embedder.images(Made(4)), torch.tensor([0, 1, 6, 3])
    expected = [
        sum(max(float(x[i] @ own[:, c]) for c in range(7) if c != but[i]) for own in asked.vectors) / 2
        for i in range(4)
    ]
    torch.testing.assert_close(asked.highest(x, but), torch.tensor(expected))
    assert (asked.highest(x) >= asked.highest(x, but)).all()
