import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.config import load
from pictura.data.batch_views import SimCLRViewConfig
from pictura.data.batches import ordered
from pictura.data.randomness import random_generator
from pictura.evaluation import alignment as module
from pictura.evaluation.alignment import Alignment, AlignmentConfig, alignment, uniformity
from pictura.evaluation.base import EvaluatorConfig
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Table
from pictura.evaluation.report import write_report
from pictura.models.pictures import standardise_
from tests.evaluation.conftest import Largest, Made


def distance(x: list[float], y: list[float]) -> float:
    """Squared, of Python's numbers."""
    return sum((a - b) ** 2 for a, b in zip(x, y, strict=True))


def naive_alignment(x: Tensor, y: Tensor) -> float:
    pairs = zip(x.tolist(), y.tolist(), strict=True)
    return sum(distance(a, b) for a, b in pairs) / len(x)


def naive_uniformity(x: Tensor) -> float:
    rows = x.tolist()
    each = [math.exp(-2 * distance(rows[i], rows[j])) for i in range(len(rows)) for j in range(i + 1, len(rows))]
    return math.log(sum(each) / len(each))


def vectors(n: int, e: int = 8, seed: int = 0, around: float = 0.0) -> Tensor:
    return F.normalize(torch.randn(n, e, generator=torch.Generator().manual_seed(seed)) + around, dim=1)


@pytest.mark.parametrize("block", [1, 7, 40, 2048])
@pytest.mark.parametrize("around", [0.0, 3.0])
def test_both_are_those_of_a_plain_loop_in_any_blocks(
    block: int, around: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    x, y = vectors(80, around=around), vectors(80, seed=1, around=around)
    assert alignment(x, y) == pytest.approx(naive_alignment(x, y), abs=1e-6)
    assert uniformity(x) == pytest.approx(naive_uniformity(x), abs=1e-6)


def test_values_that_are_known_in_closed_form() -> None:
    same, opposite = torch.eye(4)[:1].expand(5, -1), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert alignment(same, same) == uniformity(same) == 0
    assert alignment(opposite, opposite.flip(0)) == 4
    assert uniformity(opposite) == pytest.approx(-8, abs=1e-6)
    assert uniformity(torch.eye(9)) == pytest.approx(-4, abs=1e-6), "right angles"
    circle = torch.arange(3000) * 2 * math.pi / 3000
    even = torch.stack([circle.cos(), circle.sin()], 1)
    # exp(4 cos - 4) over a circle has the mean I0(4) / e^4 (Abramowitz and Stegun 9.6.16); pairs leave out i = j
    bessel = sum(4**m / math.factorial(m) ** 2 for m in range(40)) * math.exp(-4)
    assert uniformity(even) == pytest.approx(math.log((bessel * 3000 - 1) / 2999), abs=1e-6)


def test_many_that_lie_close_lose_no_digits() -> None:
    x = vectors(3000, e=4, around=30.0)
    near = torch.cdist(x.double(), x.double()).square().mul(-2).exp()
    exact = (near.sum() - near.trace()) / (3000 * 2999)
    assert float(exact.log()) > -0.02
    assert uniformity(x) == pytest.approx(float(exact.log()), abs=1e-6)


def test_the_whole_matrix_is_never_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 30)
    x = vectors(400, e=4)
    with Largest() as watch:
        uniformity(x)
        alignment(x, x)
    assert 30 * 30 <= watch.numbers <= 400 * 4


def test_pictures_and_first_captions_are_the_pairs(embedder: Embedder, tmp_path: Path) -> None:
    words = ("red", "green", "blue", "red", "small", "old", "the")
    captions = [[f"a {word} dog", "the old house"] for word in words]
    evaluator = Alignment(Made(7, captions=captions, broken=[2]), "photos")
    assert evaluator.panels() == []
    values = dict(evaluator.run(embedder))
    assert list(values) == [f"alignment/photos/{what}" for what in ("pairs", "uniformity_image", "uniformity_text")]
    images = embedder.images(Made(7, broken=[2]))
    texts = embedder.texts([some[0] for i, some in enumerate(captions) if i != 2])
    expected = (naive_alignment(images, texts), naive_uniformity(images), naive_uniformity(texts))
    assert tuple(values.values()) == pytest.approx(expected, abs=1e-6)
    assert dict(evaluator.run(embedder)) == values
    (table,) = evaluator.panels()
    assert isinstance(table, Table)
    assert table.note.startswith("6 examples")
    assert [value for _, value in table.rows] == [f"{value:.3f}" for value in expected]
    write_report(tmp_path / "r.html", title="t", metrics=values, panels=[table])


def test_a_picture_without_a_caption_takes_no_part(embedder: Embedder) -> None:
    some = [["a red dog"], [], ["the old house"], ["a tree"]]
    values = dict(Alignment(Made(4, captions=some)).run(embedder))
    images = embedder.images(Made(4))[[0, 2, 3]]
    assert values["alignment/uniformity_image"] == pytest.approx(naive_uniformity(images), abs=1e-6)
    texts = embedder.texts(["a red dog", "the old house", "a tree"])
    assert values["alignment/pairs"] == pytest.approx(naive_alignment(images, texts), abs=1e-6)


def test_pictures_alone_have_uniformity(embedder: Embedder) -> None:
    """Of data without captions, and of a model that reads none."""
    expected = naive_uniformity(embedder.images(Made(6)))
    values = dict(Alignment(Made(6)).run(embedder))
    assert values == {"alignment/uniformity_image": pytest.approx(expected, abs=1e-6)}
    mute = Embedder(embedder.model, None, batch_size=4)
    evaluator = Alignment(Made(6, captions=[["a dog"]] * 6))
    assert dict(evaluator.run(mute)) == values
    (table,) = evaluator.panels()
    assert isinstance(table, Table) and len(table.rows) == 1


def test_a_collapsed_model_is_aligned_and_not_uniform_and_a_broken_one_is_no_number(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Made(9)
    for value in (1.0, torch.nan):
        monkeypatch.setattr(embedder.model, "encode_image", lambda image, v=value: torch.full((len(image), 24), v))
        (found,) = dict(Alignment(source).run(embedder)).values()
        assert math.isnan(found) if math.isnan(value) else abs(found) < 1e-6


def test_fewer_than_two_examples_are_refused(embedder: Embedder) -> None:
    with pytest.raises(ValueError, match=r"^alignment: the data has 1 usable picture; at least two are needed"):
        dict(Alignment(Made(2, broken=[0])).run(embedder))
    with pytest.raises(ValueError, match="no usable picture with a caption"):
        dict(Alignment(Made(3, captions=[[], [], []])).run(embedder))
    with pytest.raises(ValueError, match=r"^alignment/x: the data has 1 usable picture with a caption"):
        dict(Alignment(Made(3, captions=[[], ["a"], []]), "x").run(embedder))
    blind = Made(2)
    blind.provides = frozenset({"captions"})
    with pytest.raises(ValueError, match="no image"):
        Alignment(blind)


def test_a_recipe_names_it_by_kind() -> None:
    scenes = {"kind": "scenes", "gives": ["image", "captions"], "objects": [1, 1], "count": 6}
    config = load(EvaluatorConfig, {"kind": "alignment", "data": scenes, "name": "scenes"})
    assert isinstance(config, AlignmentConfig)
    assert config.build().title == "alignment/scenes"


def test_two_views_of_a_picture_are_a_pair(embedder: Embedder) -> None:
    source, config = Made(7), SimCLRViewConfig(blur=0.0)
    still = SimCLRViewConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, strength=0.0, grey=0.0, blur=0.0)
    found = {view: dict(Alignment(source, view=view.build()).run(embedder)) for view in (config, still)}
    assert found[still]["alignment/views"] == pytest.approx(0, abs=1e-9)
    (batch,) = ordered(source, embedder.view, None, 7)
    seeds = [int(random_generator(0, 0, index, "views").integers(2**63)) for index in range(7)]
    views = standardise_(config.build()(batch["image"], seeds, 2), embedder.model.config)
    with torch.inference_mode():
        one, two = F.normalize(embedder.model.eval().encode_image(views).float(), dim=1).chunk(2)
    assert found[config]["alignment/views"] == pytest.approx(naive_alignment(one, two), rel=1e-4)
    assert found[config]["alignment/views"] > 1e-4
