"""A model ready to use: the most probable labels alone."""

import numpy as np
import pytest
import torch

from pictura.config import load
from pictura.data.text import Tokenizer
from pictura.evaluation import ready
from pictura.evaluation.prompts import Prompts
from pictura.evaluation.ready import NONE, Pictura, answers
from pictura.models.classifier import ClassifierConfig
from pictura.models.clip import CLIP
from tests.evaluation.conftest import Made

LABELS = ["a dog", "a cat", "a house", "the tree", "a red dog"]


@pytest.mark.parametrize("prompts", ["plain", Prompts(known=(4.0, 0.1)), Prompts(average="probabilities")])
@pytest.mark.parametrize("top", [1, 2, 6, 99])
def test_the_most_probable_are_those_of_the_whole_answer(
    top: int, prompts: str | Prompts, model: CLIP, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(prompts, Prompts) and prompts.average == "probabilities":
        prompts = Prompts(average="probabilities", templates=("a {}", "photo of {}"))
    pictures = [np.asarray(Made(7)[i]["image"]) for i in range(7)]
    able = Pictura(model, tokenizer, torch.device("cpu"))
    whole = able.classify(pictures, LABELS, prompts)
    monkeypatch.setattr(ready, "AT_ONCE", 12)  # two pictures at a time
    best = able.classify(pictures, LABELS, prompts, top=top)
    assert (NONE in whole[0]) is (isinstance(prompts, Prompts) and prompts.known is not None)
    assert len(best) == 7 and len({tuple(one.values()) for one in whole}) > 1
    for one, all_of_it in zip(best, whole, strict=True):
        wanted = sorted(all_of_it.items(), key=lambda item: -item[1])[:top]
        assert list(one) == [label for label, _ in wanted]
        assert list(one.values()) == pytest.approx([share for _, share in wanted], rel=1e-5)


def test_of_equally_probable_ones_the_earlier() -> None:
    shares = torch.zeros(1, 1000)
    shares[0, 700:] = 1 / 300
    names = [str(n) for n in range(1000)]
    (best,) = answers(names, shares, lambda rows: rows, 301)
    assert list(best) == [*names[700:], "0"]


def test_a_classifiers_own_head() -> None:
    torch.manual_seed(0)
    tower = {"kind": "vit", "image_size": 8, "patch_size": 4, "width": 8, "depth": 1, "heads": 2}
    names = ("dog", "sofa", "crane")
    classifier = load(ClassifierConfig, {"image": tower, "classes": 3, "class_names": list(names)}).build()
    torch.nn.init.normal_(classifier.head.weight)  # which begins at zero
    able = Pictura(classifier, None, torch.device("cpu"))
    pictures = [np.full((8, 8, 3), grey, np.uint8) for grey in (0, 99, 255)]
    whole = able.classify(pictures)
    for best, every in zip(able.classify(pictures, top=2), whole, strict=True):
        assert [*every] == [*names] and sum(every.values()) == pytest.approx(1)
        assert [*best.items()] == sorted(every.items(), key=lambda item: -item[1])[:2]


def test_no_picture(model: CLIP, tokenizer: Tokenizer) -> None:
    able = Pictura(model, tokenizer, torch.device("cpu"))
    assert able.classify([], LABELS, top=2) == able.classify([], LABELS) == []
    with pytest.raises(ValueError, match=r"^top: 0 tells nothing; give 1 or more$"):
        able.classify([], LABELS, top=0)
