from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pictura.data.decode import decode
from pictura.data.scenes import ScenesConfig
from pictura.data.text import Tokenizer
from pictura.data.wordpiece import WordPieceTokenizerConfig
from pictura.evaluation.embed import Embedder
from pictura.evaluation.ready import Pictura
from pictura.evaluation.recall import distinct_texts
from pictura.evaluation.rerank import PAIRS_AT_ONCE, pair_scores
from pictura.evaluation.retrieval import Retrieval, RetrievalConfig
from pictura.models.vilt import ViLT, ViLTConfig
from pictura.models.vilt_parts import WordsConfig
from pictura.models.vit import ViTConfig
from pictura.weights.folder import save_folder
from tests.evaluation.conftest import Made
from tests.evaluation.test_retrieval import naive_ranks

CAPTIONS = [["a red dog", "a dog"], ["the blue house", "a dog"], ["an old tree near the house"], ["a cat"]]


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return WordPieceTokenizerConfig(vocab_size=120).build(lambda: (text for some in CAPTIONS for text in some))


def matcher(words: Tokenizer, seed: int = 0, **changes: Any) -> Embedder:
    torch.manual_seed(seed)
    text = WordsConfig(vocab_size=words.vocab_size, context_length=40, end_token=words.end, mask_token=words.mask)
    image = ViTConfig(image_size=32, patch_size=16, width=24, depth=2, heads=3)
    config = ViLTConfig(image=image, text=text, **{"tasks": ("matching",), **changes})
    model = config.build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)
    return Embedder(model, words, batch_size=3)


def dense(embedder: Embedder, source: Made, texts: list[str], indices: list[int]) -> Tensor:
    """Each pair by itself."""
    model = embedder.model
    assert isinstance(model, ViLT) and embedder.tokenizer is not None
    rows = []
    for i in indices:
        image = embedder.view(decode(source[i]["image"]), None).unsqueeze(0)  # type: ignore[arg-type]
        with torch.inference_mode():
            rows.append(torch.cat([model.match(image, embedder.tokenizer([text])) for text in texts]))
    return torch.stack(rows)


def test_scores_of_pairs_are_those_of_each_alone(words: Tokenizer) -> None:
    """By the pictures that were readable at first: one of them is not any more, and others never mattered."""
    source, embedder = Made(6, captions=[*CAPTIONS, ["a dog sleeps"], ["a"]], broken=(2,)), matcher(words)
    texts = [text for some in CAPTIONS for text in some]
    wanted = [torch.tensor([0, 3]), torch.tensor([1, 4, 2]), torch.tensor([0]), torch.tensor([], dtype=torch.long)]
    found = pair_scores(embedder, source, {0: 0, 3: 1, 2: 2, 4: 3}, texts, wanted)
    right = dense(embedder, source, texts, [0, 3])
    torch.testing.assert_close(found[0], right[0, wanted[0]], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], right[1, wanted[1]], rtol=1e-4, atol=1e-5)
    assert found[2].isnan().all() and len(found[3]) == 0


def test_a_text_is_read_to_its_end_though_a_token_has_number_zero(words: Tokenizer) -> None:
    source, embedder = Made(1, captions=[["a"]]), matcher(words)
    texts, every = ["a red [PAD] dog", "an old tree near the house a dog a cat"], [torch.arange(2)]
    assert (words(texts[:1])[0] == 0).any()
    alone = pair_scores(embedder, source, {0: 0}, texts[:1], [torch.arange(1)])
    torch.testing.assert_close(alone[0][0], pair_scores(embedder, source, {0: 0}, texts, every)[0][0])


def test_more_pairs_than_go_at_once(words: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    source, embedder, texts = Made(4, captions=CAPTIONS), matcher(words), ["a", "a dog", "a cat", "house"]
    given = ({i: i for i in range(4)}, texts, [torch.arange(4)] * 4)
    whole = pair_scores(embedder, source, *given)
    assert PAIRS_AT_ONCE > 16
    monkeypatch.setattr("pictura.evaluation.rerank.PAIRS_AT_ONCE", 3)
    torch.testing.assert_close(pair_scores(embedder, source, *given), whole)


def test_a_joint_model_scores_every_pair(words: Tokenizer) -> None:
    source, embedder = Made(4, captions=CAPTIONS, broken=(1,)), matcher(words)
    evaluator = Retrieval(source)
    found = dict(evaluator.run(embedder))
    texts, pairs = distinct_texts([CAPTIONS[i] for i in (0, 2, 3)])
    scores = dense(embedder, source, texts, [0, 2, 3])
    own = [{int(t) for i, t in pairs.T.tolist() if i == row} for row in range(3)]
    ranks = naive_ranks(scores, own)
    back = naive_ranks(scores.T, [{int(i) for i, t in pairs.T.tolist() if t == text} for text in range(len(texts))])
    assert found["retrieval/image_to_text/R@1"] == pytest.approx(sum(r < 1 for r in ranks) / 3)
    assert found["retrieval/text_to_image/R@1"] == pytest.approx(sum(r < 1 for r in back) / len(texts))
    assert evaluator.panels() and evaluator.indices == [0, 2, 3]


def test_a_shortlist_is_put_in_another_order_and_the_rest_stays(embedder: Embedder, words: Tokenizer) -> None:
    """`embedder`: the CLIP of the neighbours' tests comes first."""
    captions = [["a red dog"], ["the green house"], ["a small tree"], ["a cat runs"], ["the old photo"], ["a blue dog"]]
    source, second = Made(6, captions=captions), matcher(words, seed=3)
    texts = [some[0] for some in captions]
    found = dict(Retrieval(source, "", (embedder.model, embedder.tokenizer), 3).run(second))
    cosines = embedder.images(source) @ embedder.texts(texts).T
    scores = dense(second, source, texts, list(range(6)))
    for name, first, again in (("image_to_text", cosines, scores), ("text_to_image", cosines.T, scores.T)):
        ranks = []
        for i in range(6):
            order = first[i].argsort(descending=True).tolist()
            shortlist = sorted(order[:3], key=lambda c: float(again[i, c]), reverse=True)
            ranks.append([*shortlist, *order[3:]].index(i))
        assert found[f"retrieval/{name}/median_rank"] == pytest.approx(sorted(ranks)[2] / 2 + sorted(ranks)[3] / 2 + 1)
        assert found[f"retrieval/{name}/R@1"] == pytest.approx(sum(r == 0 for r in ranks) / 6)
        assert found[f"retrieval/{name}/R@5"] == pytest.approx(sum(r < 5 for r in ranks) / 6)


def test_a_shortlist_of_everything_is_no_shortlist(embedder: Embedder, words: Tokenizer) -> None:
    source, second = Made(4, captions=CAPTIONS), matcher(words)
    alone = dict(Retrieval(source).run(second))
    assert dict(Retrieval(source, "", (embedder.model, embedder.tokenizer), 99).run(second)) == alone


def test_models_that_cannot(embedder: Embedder, words: Tokenizer, tmp_path: Path) -> None:
    source = Made(4, captions=CAPTIONS)
    with pytest.raises(ValueError, match="has no head for rank or matching; train a vilt"):
        Retrieval(source).check(matcher(words, tasks=("words",)).model)
    with pytest.raises(ValueError, match="has no head for rank or matching"):
        Retrieval(source, "", (embedder.model, embedder.tokenizer)).check(embedder.model)
    save_folder(tmp_path / "vilt", matcher(words).model, words)
    with pytest.raises(ValueError, match=r"first: .*vilt \(vilt\) has no vectors of texts; name a CLIP"):
        RetrievalConfig(data=ScenesConfig(), first=str(tmp_path / "vilt")).build()
    with pytest.raises(ValueError, match="top: 0 is below 1; try 16"):
        RetrievalConfig(data=ScenesConfig(), top=0)


def test_matching_from_python(words: Tokenizer, tmp_path: Path) -> None:
    embedder = matcher(words)
    ready, texts = Pictura(embedder.model, words, torch.device("cpu")), ["a red dog", "a cat"]
    pictures = [Made(3, captions=CAPTIONS)[i]["image"] for i in range(3)]
    found = ready.match(pictures, texts)
    expected = dense(embedder, Made(3, captions=CAPTIONS), texts, [0, 1, 2])
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert ready.match([], texts).shape == (0, 2) and ready.match(pictures, []).shape == (3, 0)
    np.testing.assert_array_equal(
        ready.match(np.stack(pictures), texts[0])[:, 0], ready.match(pictures, texts[:1])[:, 0]
    )
    for text, complaint in (("", "text: it is empty"), ("red " * 60, "text: .* tokens, and this model reads 40")):
        with pytest.raises(ValueError, match=complaint):
            ready.match(pictures, [text])
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"torn\.png: "):
        ready.match([*pictures, tmp_path / "torn.png"], texts)
    with pytest.raises(ValueError, match="has no head for rank or matching"):
        Pictura(matcher(words, tasks=("words",)).model, words, torch.device("cpu")).match(pictures, texts)
