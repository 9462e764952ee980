"""What a detector is asked: names, with attributes or without, in the sentences of a set."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from pictura.data.text import Tokenizer
from pictura.evaluation.detect import beside, looking, query_for, vocabulary
from pictura.evaluation.embed import Embedder
from pictura.evaluation.prompts import fill, sets
from pictura.evaluation.ready import Pictura
from pictura.models.clip import CLIP
from pictura.prepare import name_classes
from tests.evaluation.test_detection import named
from tests.models.test_vild import pictures, small

NAMES, HOW = ("drop", "star"), ("red", "old")


def test_names_are_looked_for_with_attributes(model: CLIP, tokenizer: Tokenizer) -> None:
    detector, embedder = named(model, tokenizer, "star", "ring")
    ready, (image,) = Pictura(detector, tokenizer, torch.device("cpu")), pictures((64, 64))
    given = [image.permute(1, 2, 0).numpy()]
    found = ready.detect(given, NAMES, 0.0, 300, HOW)[0]
    red, old = ["something red", "a red thing", "a red object"], ["something old", "an old thing", "an old object"]
    attributes = F.normalize(embedder.texts(red + old).view(2, 3, -1).mean(1), dim=1)
    with torch.inference_mode():
        wanted = detector.detect([image], replace(query_for(embedder, NAMES), attributes=attributes))[0]
    assert (found["scores"] - wanted["scores"]).abs().max() < 1e-6
    assert found["labels"].tolist() == [label // 2 for label in wanted["labels"].tolist()]
    assert found["text_labels"] == [f"{HOW[label % 2]} {NAMES[label // 2]}" for label in wanted["labels"].tolist()]
    assert len(set(found["text_labels"])) == 4
    assert ready.detect(given, NAMES, 0.0, 300)[0]["text_labels"] != found["text_labels"], "the latest words are asked"


def test_names_are_those_of_training_however_they_are_written(model: CLIP, tokenizer: Tokenizer) -> None:
    detector, embedder = named(model, tokenizer, "old_star", "ring")
    with torch.no_grad():
        detector.classes.normal_()
    vectors, trained = vocabulary(embedder, ["Old star", "drop"])
    assert trained.tolist() == [True, False] and torch.equal(vectors[0], detector.classes[0])
    assert torch.equal(beside(embedder, ["old star", "drop"]), detector.classes[1:])


def test_a_teacher_is_the_clip_whose_texts_the_names_are(model: CLIP, tokenizer: Tokenizer) -> None:
    _, embedder = named(model, tokenizer, "star")
    looking(embedder, Embedder(model, tokenizer))
    torch.manual_seed(5)
    other = model.config.build()
    with pytest.raises(ValueError, match="not the CLIP whose texts"):
        looking(embedder, Embedder(other, tokenizer))


def test_attributes_that_cannot_be(model: CLIP, tokenizer: Tokenizer) -> None:
    detector, _ = named(model, tokenizer, "star")
    for asked, attributes, says in (
        (detector, [], "attributes: none given"),
        (detector, ["red", "old", "red"], "attributes: 'red' is there twice"),
        (detector, ["red"], "attributes: 'red' alone is told from nothing"),
        (small(), ["red", "old"], "attributes: this detector reads no texts"),
    ):
        ready = Pictura(asked, tokenizer, torch.device("cpu"))
        with pytest.raises(ValueError, match=says):
            ready.detect([pictures((64, 64))[0].permute(1, 2, 0).numpy()], attributes=attributes)


def test_templates_may_be_a_set_by_its_name(model: CLIP, tokenizer: Tokenizer) -> None:
    detector, embedder = named(model, tokenizer, "old_tree")
    detector.config = replace(detector.config, templates="scene")
    name_classes(detector, detector.config, Embedder(model, tokenizer))
    wanted = F.normalize(embedder.texts([fill(one, "old tree") for one in sets()["scene"].templates]).mean(0), dim=0)
    for vector in vocabulary(embedder, ["old_tree", "old tree"])[0]:
        assert (vector - wanted).abs().max() < 1e-5, "trained on or not"
