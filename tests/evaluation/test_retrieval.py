from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pictura.evaluation.base import TIE
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Gallery
from pictura.evaluation.recall import distinct_texts, nearest, ranks_both_ways
from pictura.evaluation.report import write_report
from pictura.evaluation.retrieval import Retrieval
from tests.evaluation.conftest import Largest, Made


def naive_ranks(scores: Tensor, own: list[set[int]]) -> list[int]:
    """One query at a time over the stored matrix: how many wrong candidates stand before the best right one."""
    ranks = []
    for row, right in zip(scores.tolist(), own, strict=True):
        if right:
            best = max(row[j] for j in right)
            ranks.append(sum(not row[j] < best - TIE for j in range(len(row)) if j not in right))
    return ranks


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Tensor, Tensor, list[list[str]]]:
    """Vectors on a coarse grid, so that ties are common, and captions that pictures share or lack."""
    n, e = draw(st.integers(1, 12)), draw(st.integers(1, 3))
    captions = draw(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=3), min_size=n, max_size=n))
    captions[0] = captions[0] or ["a"]
    texts, _ = distinct_texts(captions)

    def grid(rows: int) -> Tensor:
        values = draw(st.lists(st.integers(-2, 2), min_size=rows * e, max_size=rows * e))
        return torch.tensor(values, dtype=torch.float32).view(rows, e)

    return grid(n), grid(len(texts)), captions


@settings(deadline=None, max_examples=200)
@given(worlds(), st.integers(1, 5))
def test_ranks_in_blocks_are_those_of_a_plain_loop(world: tuple[Tensor, Tensor, list[list[str]]], block: int) -> None:
    images, texts, captions = world
    names, pairs = distinct_texts(captions)
    owners = [{i for i, some in enumerate(captions) if name in some} for name in names]
    of_images, of_texts = ranks_both_ways(images, texts, pairs, block=block)
    scores = images @ texts.T
    assert of_images.tolist() == naive_ranks(scores, [{names.index(c) for c in some} for some in captions])
    assert of_texts.tolist() == naive_ranks(scores.T, owners)


def test_metrics_are_open_clips_with_one_caption_for_each_picture() -> None:
    train = pytest.importorskip("open_clip_train.train")
    generator = torch.Generator().manual_seed(0)
    images, noise = torch.randn(2, 50, 8, generator=generator)
    images, texts = (torch.nn.functional.normalize(x, dim=-1) for x in (images, images + noise))
    theirs = train.get_clip_metrics(images, texts, torch.tensor(1.0))
    ranks = ranks_both_ways(images, texts, torch.arange(50).repeat(2, 1), block=7)
    for direction, mine in zip(("image_to_text", "text_to_image"), ranks, strict=True):
        for k in (1, 5, 10):
            assert float((mine < k).double().mean()) == theirs[f"{direction}_R@{k}"]
        assert np.floor(np.median(mine.numpy())) + 1 == theirs[f"{direction}_median_rank"]


def test_recall_is_clip_benchmarks_with_several_captions() -> None:
    """CLIP_benchmark (metrics/zeroshot_retrieval.py): a picture is right when any of its captions is in the first k."""
    generator = torch.Generator().manual_seed(1)
    images, texts = torch.randn(30, 6, generator=generator), torch.randn(90, 6, generator=generator)
    owner = torch.arange(90) // 3
    of_images, of_texts = ranks_both_ways(images, texts, torch.stack((owner, torch.arange(90))), block=16)
    scores = texts @ images.T
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive[torch.arange(90), owner] = True
    for k in (1, 5, 10):
        in_first_k = torch.zeros_like(positive).scatter(0, scores.topk(k, dim=0).indices, True)
        assert ((positive & in_first_k).any(0) == (of_images < k)).all()
        in_first_k = torch.zeros_like(positive).scatter(1, scores.topk(k, dim=1).indices, True)
        assert ((positive & in_first_k).any(1) == (of_texts < k)).all()


def test_a_collapsed_or_broken_model_finds_nothing() -> None:
    pairs = torch.arange(500).repeat(2, 1)
    same = torch.nn.functional.normalize(torch.randn(1, 64), dim=-1).expand(500, -1)
    for vectors in (same, torch.full((500, 64), torch.nan)):
        for ranks in ranks_both_ways(vectors, vectors, pairs, block=128):
            assert (ranks >= 499).all()


def test_the_whole_matrix_is_never_there() -> None:
    with Largest() as watch:
        ranks_both_ways(
            torch.randn(200, 4),
            torch.randn(300, 4),
            torch.stack((torch.arange(300) % 200, torch.arange(300))),
            block=30,
        )
    assert 30 * 30 <= watch.numbers <= 300 * 4


def test_the_same_caption_is_one_text_that_belongs_to_all_its_pictures() -> None:
    names, pairs = distinct_texts([["a dog", "a cat"], ["a dog"], ["a dog", "a dog"], []])
    assert names == ["a dog", "a cat"]
    assert pairs.T.tolist() == [[0, 0], [0, 1], [1, 0], [2, 0]]
    images = torch.eye(4)
    texts = torch.tensor([[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    of_images, of_texts = ranks_both_ways(images, texts, pairs)
    assert of_images.tolist() == [0, 1, 0]  # the second sees a tie between its own and another's; the last asks nothing
    assert of_texts.tolist() == [0, 0]


def test_run_yields_every_name_and_counts_only_readable_pictures(embedder: Embedder, tmp_path: Path) -> None:
    captions = [[f"a red dog {i}", "the old house"] for i in range(11)]
    evaluator = Retrieval(Made(11, captions=captions, broken=[3]))
    assert evaluator.panels() == []
    values = dict(evaluator.run(embedder))
    assert list(values) == [
        f"retrieval/{direction}/{what}"
        for direction in ("image_to_text", "text_to_image")
        for what in ("R@1", "R@5", "R@10", "median_rank")
    ]
    images = embedder.images(Made(11, broken=[3]))
    texts = embedder.texts([f"a red dog {i}" for i in range(11) if i != 3] + ["the old house"])
    scores = images @ texts.T
    ranks = naive_ranks(scores, [{i, 10} for i in range(10)])
    assert values["retrieval/image_to_text/R@5"] == np.mean([rank < 5 for rank in ranks])
    assert values["retrieval/image_to_text/median_rank"] == np.median(ranks) + 1
    ranks = naive_ranks(scores.T, [{i} for i in range(10)] + [set(range(10))])
    assert values["retrieval/text_to_image/R@1"] == np.mean([rank < 1 for rank in ranks])
    write_report(tmp_path / "r.html", title="t", metrics=values, panels=evaluator.panels())


def test_a_name_goes_into_the_metrics(embedder: Embedder) -> None:
    source = Made(3, captions=[["a"], ["b"], ["c"]])
    names = [name for name, _ in Retrieval(source, "photos").run(embedder)]
    assert names[0] == "retrieval/photos/image_to_text/R@1"


def test_panels_mark_a_pictures_own_captions(embedder: Embedder) -> None:
    evaluator = Retrieval(Made(4, captions=[[f"dog {i}", "a cat"] for i in range(4)], broken=[0]))
    dict(evaluator.run(embedder))
    captions, pictures = evaluator.panels()
    assert isinstance(captions, Gallery) and isinstance(pictures, Gallery)
    for i, picture in enumerate(captions.rows[0][1]):
        own = {f"dog {i + 1}", "a cat"}
        assert picture.image is not None
        assert {line.text for line in picture.lines if line.mark} == own & {line.text for line in picture.lines}
    for heading, found in pictures.rows:
        assert sum(picture.good is True for picture in found) == (3 if heading == "“a cat”" else 1)


def test_nearest_are_the_best_in_order_and_then_the_right_one() -> None:
    queries = torch.eye(3)
    candidates = torch.tensor([[0.1 * j, 0.5, 0.9 - 0.1 * j] for j in range(9)])
    found = nearest(queries, candidates, torch.tensor([[0, 0, 1], [2, 1, 8]]))
    assert [(a.place, a.rank, a.own) for a in found[0]] == [
        *((8 - r, r + 1, False) for r in range(5)),
        (2, 7, True),
    ]
    assert found[0][-1].says() == "rank 7 · 0.20"
    assert found[1][-1].rank in (1, 2, 3, 4, 5, 9) and sum(a.own for a in found[1]) == 1  # all tie: last of nine
    assert [a.place for a in found[2]] == [0, 1, 2, 3, 4]
    assert not any(a.own for a in found[2])


def test_data_without_captions_is_refused(embedder: Embedder) -> None:
    with pytest.raises(ValueError, match="no captions"):
        Retrieval(Made(3))
    with pytest.raises(ValueError, match="no usable picture"):
        dict(Retrieval(Made(3, captions=[[], [], []])).run(embedder))
