"""A detector's parts against torchvision's, and that nothing but a picture decides what is found in it."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from pictura.models.clip import CLIPConfig
from pictura.models.resnet import ResNetConfig
from pictura.models.text import TextTransformerConfig
from pictura.models.vild import ViLD, ViLDConfig
from pictura.models.vild_finding import Query
from pictura.models.vild_parts import HeadConfig
from pictura.models.vit import ViTConfig

SMALL = ResNetConfig(block="basic", layers=(1, 1, 1, 1), width=8, image_size=64)
VIT = ViTConfig(width=24, depth=2, heads=3, patch_size=16, image_size=64)


def small(**changes: Any) -> ViLD:
    torch.manual_seed(0)
    given = {"image": SMALL, "width": 16, "embed_dim": 12, "head": HeadConfig(width=32), "anchors": 4.0}
    given |= {"proposals": 40, "detections": 20, "class_names": ("star", "ring", "bolt")}
    model = ViLDConfig(**{**given, **changes}).build()
    with torch.no_grad():  # fresh heads give every region nearly the same box and name
        for part in (model.boxes, model.proposer.rpn.head.cls_logits, model.proposer.rpn.head.bbox_pred):
            part.weight.mul_(30)
    return model.eval()


def pictures(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]


@torch.inference_mode()
@pytest.mark.parametrize("image", [SMALL, VIT], ids=["resnet", "vit"])
@pytest.mark.parametrize("ensemble", [False, True])
def test_what_is_found_depends_on_nothing_else_in_the_batch(ensemble: bool, image: Any) -> None:
    model, given = small(ensemble=ensemble, masks=True, image=image), pictures((64, 64), (50, 90), (64, 64), (33, 40))
    together = model.detect(given)
    for one, picture in zip(together, given, strict=True):
        alone = model.detect([picture])[0]
        assert one["boxes"].shape == alone["boxes"].shape and len(one["boxes"])
        assert (one["boxes"] - alone["boxes"]).abs().max() < 1e-4
        assert (one["scores"] - alone["scores"]).abs().max() < 1e-4
        assert torch.equal(one["labels"], alone["labels"])
        assert one["masks"].shape == (len(one["boxes"]), *picture.shape[1:])


@torch.inference_mode()
def test_boxes_lie_in_their_picture_the_best_first_none_twice() -> None:
    model = small()
    for one, image in zip(model.detect(given := pictures((50, 90), (64, 64))), given, strict=True):
        height, width = image.shape[1:]
        assert (one["boxes"] >= 0).all() and (one["boxes"] <= torch.tensor([width, height] * 2)).all()
        assert (one["boxes"][:, 2:] > one["boxes"][:, :2]).all()
        assert (one["scores"].diff() <= 0).all() and len(one["scores"]) <= 20
        for label in one["labels"].unique():
            own = one["boxes"][one["labels"] == label]
            assert (box_iou(own, own) - torch.eye(len(own))).max() <= 0.5


@torch.inference_mode()
def test_padding_to_whole_cells_is_not_seen() -> None:
    """Below the picture there is grey of the mean, which a normalised picture has as zeros."""
    model = small()
    (image,) = pictures((50, 90))
    seen = model.look(image[None])
    assert seen.size == (64, 96)
    for level, one in enumerate(seen.maps[:-1]):
        assert one.shape[2:] == (64 // 2 ** (level + 2), 96 // 2 ** (level + 2))


@torch.inference_mode()
def test_all_classes_share_their_boxes_and_masks() -> None:
    """One box and one mask for a region, whatever it is called: doubling the vocabulary adds names, no parameters."""
    model = small(masks=True)
    assert model.boxes.weight.shape == (4, 32)
    assert model.masks is not None and model.masks.out.weight.shape[0] == 1
    many = torch.randn(1203, 12)
    found = model.detect(pictures((64, 64)), Query(many))[0]
    assert int(found["labels"].max()) > 3
    again = model.detect(pictures((64, 64)), Query(torch.cat([many, torch.randn(1203, 12)])))[0]
    assert len(again["boxes"])
    exact = everything(model, pictures((64, 64))[0], many)
    assert (exact["scores"] - found["scores"]).abs().max() < 1e-6, "the best pairs are enough"


def everything(model: ViLD, image: Tensor, classes: Tensor) -> dict[str, Tensor]:
    """`detect` for one picture without taking the best pairs first, by a loop over classes."""
    from torchvision.ops import clip_boxes_to_image, nms

    seen = model.look(image[None])
    ((proposed, _),) = model.proposer.propose(seen.maps, seen.found, [(64, 64)])
    features = model.regions(model.pool(seen, [proposed]))
    boxes = model.coder.decode(model.boxes(features), [proposed]).view(-1, 4)
    boxes = clip_boxes_to_image(boxes, (64, 64))
    kept = ((boxes[:, 2:] - boxes[:, :2]) > 0.01).all(1)
    vectors = torch.nn.functional.normalize(model.regions.project(features), dim=1)
    words = torch.nn.functional.normalize(torch.cat([model.background[None], classes]), dim=1)
    chance = (100 * vectors @ words.T).softmax(1)[:, 1:][kept]
    rows = []
    for label in range(len(classes)):
        rows += [(float(chance[i, label]), label) for i in nms(boxes[kept], chance[:, label], 0.5).tolist()]
    best = sorted(rows, reverse=True)[:20]
    return {"scores": torch.tensor([score for score, _ in best]), "labels": torch.tensor([label for _, label in best])}


@torch.inference_mode()
def test_the_ensemble_is_a_geometric_mean_that_trusts_each_head_where_it_is_at_home() -> None:
    model = small(ensemble=True, logit_scale=1.0)
    torch.manual_seed(1)
    words, shown, classes = torch.randn(5, 12), torch.randn(5, 12), torch.randn(3, 12)
    trained = torch.tensor([True, False, True])
    said = model.name(words, classes, trained, "words", None)
    seen = model.name(words, classes, trained, "picture", shown)
    both = model.name(words, classes, trained, "ensemble", shown)
    assert said.sum(1).max() < 1 and seen.sum(1).sub(1).abs().max() < 1e-5, "the background has its part of the one"
    for k, base in enumerate(trained.tolist()):
        for i in range(5):
            p, q = float(said[i, k]), float(seen[i, k])
            wanted = p ** (2 / 3) * q ** (1 / 3) if base else p ** (1 / 3) * q ** (2 / 3)
            assert float(both[i, k]) == pytest.approx(wanted, rel=1e-4, abs=1e-12)


@torch.inference_mode()
@pytest.mark.parametrize("by", ["words", "picture", "ensemble"])
def test_every_class_is_looked_for_with_every_attribute(by: Any) -> None:
    """Against a loop over regions, classes and attributes; nothing is left out by overlap or number."""
    model, (image,) = small(ensemble=True, logit_scale=1.0, nms=1.0, detections=500), pictures((64, 64))
    torch.manual_seed(1)
    classes, attributes, trained = torch.randn(3, 12), torch.randn(2, 12), torch.tensor([True, False, True])
    found = model.detect([image], Query(classes, trained, by=by, attributes=attributes))[0]
    seen = model.look(image[None])
    ((proposed, _),) = model.proposer.propose(seen.maps, seen.found, [(64, 64)])
    pooled = model.pool(seen, [proposed])
    assert model.taught is not None
    words, shown = model.regions.project(model.regions(pooled)), model.taught.project(model.taught(pooled))
    chances = model.name(words, classes, trained, by, shown).tolist()
    wanted: dict[int, list[float]] = {label: [] for label in range(6)}
    for i, region in enumerate(shown if by == "picture" else words):
        powers = [math.exp(math.e * float(torch.cosine_similarity(region, one, 0))) for one in attributes]
        for k in range(3):
            for q in range(2):
                wanted[2 * k + q].append(chances[i][k] * powers[q] / sum(powers))
    for label, scores in wanted.items():
        assert found["scores"][found["labels"] == label].tolist() == pytest.approx(sorted(scores)[::-1], abs=1e-6)
    alone, plain = (
        model.detect([image], Query(classes, trained, by=by, attributes=some, objectness=True))[0]
        for some in (attributes[:1], None)
    )
    assert all(torch.equal(alone[key], plain[key]) for key in ("scores", "labels", "boxes"))


@torch.inference_mode()
def test_a_thing_has_one_attribute_of_a_class_and_a_place() -> None:
    torch.manual_seed(1)
    query, (image,) = Query(torch.randn(2, 12), attributes=torch.randn(3, 12)), pictures((64, 64))
    found, every = (small(logit_scale=1.0, nms=nms, detections=900).detect([image], query)[0] for nms in (0.0, 1.0))
    for k in range(2):
        boxes = found["boxes"][found["labels"] // 3 == k]
        assert len(boxes) and float(box_iou(boxes, boxes).triu(1).max()) == 0
    assert len(every["labels"].unique()) == 6


@torch.inference_mode()
@pytest.mark.parametrize("by", ["words", "picture", "ensemble"])
def test_what_a_thing_may_be_besides_has_its_share(by: Any) -> None:
    """Asked for one of three classes among the others, the scores are those of that class asked for with the others."""
    model, (image,) = small(ensemble=True, logit_scale=1.0, nms=1.0, detections=500), pictures((64, 64))
    torch.manual_seed(1)
    classes, trained = torch.randn(3, 12), torch.tensor([False, True, True])
    alone = model.detect([image], Query(classes[:1], trained[:1], classes[1:], by=by))[0]
    every = model.detect([image], Query(classes, trained, by=by))[0]
    assert set(alone["labels"].tolist()) == {0}
    assert torch.equal(alone["scores"], every["scores"][every["labels"] == 0])
    without = model.detect([image], Query(classes[:1], trained[:1], by=by))[0]
    assert (without["scores"] > alone["scores"]).all()


def test_a_model_whose_training_diverged_is_not_one_that_finds_nothing() -> None:
    model = small()
    with torch.no_grad():
        model.proposer.rpn.head.cls_logits.weight.fill_(torch.nan)
    for look in (model.detect, model.propose):
        with pytest.raises(ValueError, match="not finite; has its training diverged"):
            look(pictures((64, 64)))


def test_proposals_are_torchvisions() -> None:
    """The same head, anchors and rules as its RegionProposalNetwork, which is given the same maps."""
    from torchvision.models.detection.image_list import ImageList

    model = small()
    with torch.inference_mode():
        seen = model.look(torch.stack(pictures((64, 64), (64, 64))))
        own = model.proposer.propose(seen.maps, seen.found, [seen.size] * 2)
        images = ImageList(torch.zeros(2, 3, 64, 64), [(64, 64)] * 2)
        theirs, _ = model.proposer.rpn(images, {str(i): one for i, one in enumerate(seen.maps)})
    for (boxes, scores), wanted in zip(own, theirs, strict=True):
        assert torch.equal(boxes, wanted) and len(scores) == len(boxes)


def test_a_vits_maps_are_a_pyramid() -> None:
    model = small(image=VIT)
    seen = model.look(pictures((64, 90))[0][None])
    assert seen.size == (64, 96)
    assert [one.shape[1:] for one in seen.maps] == [(16, 64 // s, 96 // s) for s in (4, 8, 16, 32)] + [(16, 1, 2)]
    (tokens,) = model.image.eval().maps(torch.randn(2, 3, 64, 96))
    assert tokens.shape == (2, 24, 4, 6)
    for changes in ({"patch_dropout": 0.5}, {"patch_size": 2}, {"patch_size": 28, "image_size": 56}):
        with pytest.raises(ValueError, match="patch_dropout 0 and a patch_size of 4, 8"):
            small(image=ViTConfig(**{**vars(VIT), **changes}))


def test_a_detector_can_begin_with_a_clips_pictures_too() -> None:
    from pictura.weights.initial import inherited, started

    text = TextTransformerConfig(width=16, heads=2, depth=1, vocab_size=50, context_length=8)
    clip = CLIPConfig(image=VIT, text=text, embed_dim=12).build()
    for size in (64, 128):
        config = started(clip.config, ViLDConfig(image=None, width=16, class_names=("a",)), size)
        assert isinstance(config, ViLDConfig) and config.text == text and config.tower.image_size == size
        model = config.build()
        weights = inherited(clip, config, model)
        model.load_state_dict(weights)
        assert torch.equal(weights["image.blocks.1.mlp.fc1.weight"], clip.image.state_dict()["blocks.1.mlp.fc1.weight"])


@torch.no_grad()
def test_a_detector_begins_with_a_clips_words_and_reads_texts_as_it_does() -> None:
    from pictura.weights.initial import inherited, started

    torch.manual_seed(0)
    text = TextTransformerConfig(width=16, heads=2, depth=1, vocab_size=50, context_length=8)
    clip = CLIPConfig(image=SMALL, text=text, embed_dim=12).build()
    config = started(clip.config, ViLDConfig(image=SMALL, width=16, class_names=("a", "b")), 64)
    assert isinstance(config, ViLDConfig) and config.text == text and config.embed_dim == 12
    model = config.build()
    model.load_state_dict(inherited(clip, config, model))
    ids = torch.tensor([[1, 5, 49, 0], [1, 7, 9, 49]])
    assert (model.encode_text(ids) - clip.encode_text(ids)).abs().max() < 1e-6
    assert float(model.logit_scale) == float(clip.logit_scale)
    frozen = {name for name, one in model.named_parameters() if not one.requires_grad}
    assert {name.split(".")[0] for name in frozen} == {"text", "text_projection", "classes", "logit_scale"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"class_names": ("a", "a")}, "class_names: 'a' is there twice"),
        ({"nms": 1.5}, "nms: 1.5 is not from 0 to 1"),
        ({"detections": 0}, "detections: 0 must be above zero"),
        ({"templates": ("a photo",)}, "sentences with {} where the name goes"),
        ({"templates": ()}, "sentences with {} where the name goes"),
        ({"templates": ("scene",)}, "sentences with {} where the name goes"),
    ],
)
def test_what_cannot_be_is_said(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ViLDConfig(image=SMALL, **changes)
    with pytest.raises(ValueError, match="convs: -1"):
        HeadConfig(convs=-1)


def test_a_detector_goes_on_from_a_detector() -> None:
    from pictura.weights.initial import inherited, started, with_classes

    old = small()
    config = with_classes(started(old.config, None, 64), ("star", "ring", "bolt"))
    assert config == old.config
    model = config.build()
    model.load_state_dict(inherited(old, config, model))
    assert torch.equal(model.classes, old.classes)
    with pytest.raises(ValueError, match=r"class_names: 3 classes .* but the data has 2 classes"):
        with_classes(config, ("star", "drop"))
    text = TextTransformerConfig(width=16, heads=2, depth=1, vocab_size=50, context_length=8)
    reads = small(text=text)
    config = with_classes(started(reads.config, None, 64), ("ring", "drop"))
    assert isinstance(config, ViLDConfig) and config.text == text and config.class_names == ("ring", "drop")
    model = config.build()
    weights = inherited(reads, config, model)
    model.load_state_dict(weights)
    assert torch.equal(weights["text_projection.weight"], reads.text_projection.weight)  # type: ignore[union-attr]
    assert weights["classes"].shape == (2, 12)


@torch.inference_mode()
def test_many_pictures_are_looked_at_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from pictura.models import vild_finding

    model, given = small(), pictures(*[(64, 64)] * 5)
    together, sizes = model.detect(given), list[int]()
    real = model.look
    monkeypatch.setattr(vild_finding, "PIXELS", 2 * 64 * 64)
    monkeypatch.setattr(model, "look", lambda image: sizes.append(len(image)) or real(image))
    for one, other in zip(model.detect(given), together, strict=True):
        assert (one["boxes"] - other["boxes"]).abs().max() < 1e-4
    assert sizes == [2, 2, 1]


@torch.inference_mode()
def test_anchors_lie_where_their_cells_are() -> None:
    """Also where a level's cells do not divide the picture, of which torchvision takes the quotient, rounded down."""
    model = small()
    seen = model.look(pictures((160, 160))[0][None])
    anchors = seen.found[2]
    middles = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert seen.maps[-1].shape[2:] == (3, 3)
    assert middles[-27:].unique(dim=0).tolist() == [[x, y] for x in (0.0, 64.0, 128.0) for y in (0.0, 64.0, 128.0)]


def test_one_head_is_no_ensemble_and_learnt_classes_are_no_texts() -> None:
    model = small()
    with pytest.raises(ValueError, match="one head, not an ensemble"):
        model.detect(pictures((64, 64)), Query(by="ensemble"))
    with pytest.raises(ValueError, match="no text tower"):
        model.encode_text(torch.ones(1, 4, dtype=torch.long))
    assert np.isclose(float(model.logit_scale.exp()), 100)
