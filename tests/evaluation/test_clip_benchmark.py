"""Our numbers are those of the field's own code, CLIP_benchmark 1.6 (LAION; metrics/zeroshot_classification.py and
metrics/zeroshot_retrieval.py), on the same features, to 1e-6.

Nothing here ties: there the two differ by intention. `topk` takes one of equals, and ours takes none. Nor are two
captions the same: theirs are then two queries with one right picture each, ours is one query with two.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from pictura.data.source import Example, Source
from pictura.data.text import Tokenizer
from pictura.evaluation.embed import Embedder
from pictura.evaluation.prompts import Prompts, fill
from pictura.evaluation.recall import ranks_both_ways
from pictura.evaluation.retrieval import Retrieval
from pictura.evaluation.zeroshot import Classifier, ZeroShot, classifier
from pictura.layers.stems import PatchStemConfig
from pictura.models.clip import CLIP, CLIPConfig
from pictura.models.vit import ViTConfig
from pictura.weights.open_clip import CONFIG, OpenCLIP
from tests.weights.peers import stir

NAMES = ("dog", "cat", "house", "tree", "old house", "small tree", "red", "green", "blue dog", "sleeps", "near", "of")
TEMPLATES = ("a {}", "the small photo of the {}.", "{}")
ALMOST_TIED = 1e-5  # float32 cosines are off by 1e-7 or so
WIDTH = 24  # the embedding of the tests' CLIP
CLASSIFICATION = {"top1": "acc1", "top5": "acc5", "mean_per_class": "mean_per_class_recall"}


@pytest.fixture(scope="module", autouse=True)
def one_number_is_a_float() -> Iterator[None]:
    """Their `accuracy` ends in `float(array of one number)`, which NumPy 2.4 refuses; all else is as they wrote it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zeroshot_classification, "float", lambda number: number.item(), raising=False)
        yield


class Numbered(Source):
    """Pictures whose colour is their number, with labels or captions, or pictures of noise with captions."""

    def __init__(
        self, labels: Sequence[int] = (), captions: Sequence[list[str]] = (), names: Sequence[str] = (), noise: int = 0
    ) -> None:
        self.labels, self.given, self.class_names, self.noise = labels, captions, tuple(names), noise
        self.provides = frozenset({"image", "label" if labels else "captions"})

    def __len__(self) -> int:
        return len(self.labels or self.given)

    def __getitem__(self, index: int) -> Example:
        image = np.full((32, 32, 3), index, np.uint8)
        if self.noise:
            image = np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8)
        example = Example(key=str(index), image=image)
        if self.labels:
            example["label"] = self.labels[index]
        else:
            example["captions"] = self.given[index]
        return example


class Theirs(Dataset[tuple[Tensor, Any]]):
    """A source as CLIP_benchmark takes it."""

    def __init__(self, source: Source, prepare: Callable[[Image.Image], Tensor] | None = None) -> None:
        self.source, self.classes, self.prepare = source, source.class_names, prepare

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        example = self.source[index]
        pixels = np.asarray(example["image"])
        image = self.prepare(Image.fromarray(pixels)) if self.prepare else torch.from_numpy(pixels).permute(2, 0, 1)
        return image, example["captions"] if "captions" in example else example["label"]

    def load(self, batch_size: int) -> DataLoader[tuple[Tensor, Any]]:
        return DataLoader(self, batch_size, collate_fn=collated)


def collated(rows: list[tuple[Tensor, Any]]) -> tuple[Tensor, Any]:
    """As theirs: labels in a tensor, captions as lists of any length."""
    images, others = zip(*rows, strict=True)
    return default_collate(list(images)), others if isinstance(others[0], list) else torch.tensor(others)


class Known(nn.Module):
    """A CLIP whose features, of any length, are given: of a picture by its number, of a text by its words."""

    def __init__(self, config: CLIPConfig, tokenizer: Tokenizer, images: Tensor, texts: dict[str, Tensor]) -> None:
        super().__init__()
        self.config, self.images, self.texts = config, images, torch.stack(list(texts.values()))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(100.0)))
        self.place = {spelt(row): i for i, row in enumerate(tokenizer(list(texts)))}
        assert len(self.place) == len(texts)

    def encode_image(self, image: Tensor) -> Tensor:
        return self.images[image[:, 0, 0, 0].long()]

    def encode_text(self, ids: Tensor) -> Tensor:
        return self.texts[[self.place[spelt(row)] for row in ids]]


def spelt(row: Tensor) -> tuple[int, ...]:
    return tuple(row[row > 0].tolist())


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def untied(scores: Tensor, own: Tensor) -> bool:
    """scores, own: [q c] -> whether every wrong candidate lies clearly above or below the best right one."""
    best = scores.masked_fill(~own, -torch.inf).amax(1, keepdim=True)
    return bool(((scores - best).abs() > ALMOST_TIED)[~own].all())


def equal(found: dict[str, float], expected: dict[str, float]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6, rel=0), name


def classes_of(phrases: dict[str, tuple[str, ...]], templates: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """-> what is common to each class [k e], and vectors of its sentences, of many lengths."""
    centre = normal(1, len(phrases), WIDTH)
    texts = [(k, fill(t, one)) for k, some in enumerate(phrases.values()) for one in some for t in templates]
    noise, length = normal(2, len(texts), WIDTH), normal(3, len(texts)).exp()
    return centre, {text: length[i] * (centre[k] + noise[i]) for i, (k, text) in enumerate(texts)}


def warns_of_empty_classes(empty: bool) -> AbstractContextManager[Any]:
    return pytest.warns(UserWarning, match="y_pred contains classes not in y_true") if empty else nullcontext()


DESCRIBED = {name: tuple(f"{name} {word}" for word in "abcd"[: 1 + i % 4]) for i, name in enumerate(NAMES)}


@pytest.mark.parametrize(
    ("prompts", "pictured"),
    [
        (Prompts(templates=("a {}",)), len(NAMES)),
        (Prompts(templates=TEMPLATES), len(NAMES)),
        (Prompts(templates=TEMPLATES), len(NAMES) - 1),  # a class without pictures
        (Prompts(descriptions=DESCRIBED), len(NAMES)),  # theirs: a dict of sentences (CuPL)
    ],
    ids=["one template", "several", "an empty class", "descriptions"],
)
def test_zero_shot_classification(prompts: Prompts, pictured: int, model: CLIP, tokenizer: Tokenizer) -> None:
    centre, texts = classes_of({name: prompts.phrases(name) for name in NAMES}, prompts.templates)
    labels = [int(pictured * (i / 240) ** 2) for i in range(240)]  # some classes have many pictures, some few
    images = normal(5, 240, 1).exp() * (centre[labels] + 2 * normal(4, 240, WIDTH))
    known, source = Known(model.config, tokenizer, images, texts), Numbered(labels, names=NAMES)
    embedder = Embedder(known, tokenizer)
    described = {name: list(some) for name, some in prompts.descriptions.items()}
    templates = described or [template.replace("{}", "{c}") for template in prompts.templates]
    weights = zeroshot_classification.zero_shot_classifier(known, tokenizer, NAMES, templates, "cpu", amp=False)
    ours = Classifier.of(embedder, NAMES, prompts).vectors
    torch.testing.assert_close(ours, weights[None], atol=1e-6, rtol=0)
    assert untied(F.normalize(images, dim=1) @ weights, F.one_hot(torch.tensor(labels), len(NAMES)).bool())
    with warns_of_empty_classes(pictured < len(NAMES)):
        theirs = zeroshot_classification.evaluate(
            known, Theirs(source).load(50), tokenizer, NAMES, templates, "cpu", amp=False
        )
    found = dict(ZeroShot(source, prompts).run(embedder))
    equal(found, {f"zeroshot/{ours}": theirs[name] for ours, name in CLASSIFICATION.items()})
    assert 0.2 < theirs["acc1"] < theirs["acc5"] < 1 and abs(theirs["acc1"] - theirs["mean_per_class_recall"]) > 0.005


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning")
@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
@given(st.data())
def test_any_scores_count_as_theirs(data: st.DataObject) -> None:
    """What the evaluators of labelled pictures share (zero-shot, accuracy, probes), where nothing ties."""
    n, k = data.draw(st.integers(1, 9)), data.draw(st.integers(6, 9))
    scores = torch.tensor([data.draw(st.permutations(range(k))) for _ in range(n)]).float()
    label = torch.tensor(data.draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n)))
    evaluator = ZeroShot(Numbered(label.tolist() or [0], names=NAMES[:k]))
    halves = zip(scores.split(4), label.split(4), torch.arange(n).split(4), strict=True)
    batches = ((part, {"label": of, "index": index}) for part, of, index in halves)
    one, five = zeroshot_classification.accuracy(scores, label, topk=(1, 5))
    balanced = balanced_accuracy_score(label, scores.argmax(1))
    expected = {"zeroshot/top1": one, "zeroshot/top5": five, "zeroshot/mean_per_class": float(balanced)}
    equal(dict(evaluator.tally(batches)), expected)


def test_the_classifier_of_a_model(embedder: Embedder, model: CLIP, tokenizer: Tokenizer) -> None:
    """No features by heart: a text tower reads the sentences, one class at a time in theirs."""
    templates = [template.replace("{}", "{c}") for template in TEMPLATES]
    model.eval()
    theirs = zeroshot_classification.zero_shot_classifier(model, tokenizer, NAMES, templates, "cpu", amp=False)
    torch.testing.assert_close(classifier(embedder, NAMES, TEMPLATES), theirs, atol=1e-6, rtol=0)


def captions_of(n: int) -> list[list[str]]:
    """One to five for each of n pictures, no two the same."""
    return [[f"the {NAMES[i % 12]} {i} {word}" for word in "abcde"[: 1 + i * 7 % 5]] for i in range(n)]


def right_pairs(captions: Sequence[list[str]]) -> Tensor:
    """-> [texts pictures], bool."""
    owner = torch.tensor([i for i, some in enumerate(captions) for _ in some])
    return owner[:, None] == torch.arange(len(captions))


def retrieved(theirs: dict[str, float]) -> Iterator[tuple[str, float]]:
    """Their names are of what is found, ours of the way there."""
    for ours, way in (("image_to_text", "text"), ("text_to_image", "image")):
        for k in (1, 5, 10):
            yield f"retrieval/{ours}/R@{k}", theirs[f"{way}_retrieval_recall@{k}"]


def recalls(found: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in found.items() if "R@" in name}


@pytest.mark.parametrize("batch_size", [7, 64, 200])
def test_retrieval_with_several_captions(batch_size: int, model: CLIP, tokenizer: Tokenizer) -> None:
    captions = captions_of(120)
    images, flat = normal(1, 120, WIDTH), [text for some in captions for text in some]
    right = right_pairs(captions)
    vectors = normal(3, len(flat), 1).exp() * (right.float() @ images + 2 * normal(2, len(flat), WIDTH))
    known = Known(model.config, tokenizer, images * normal(4, 120, 1).exp(), dict(zip(flat, vectors, strict=True)))
    scores = F.normalize(vectors, dim=1) @ F.normalize(images, dim=1).T
    assert untied(scores, right) and untied(scores.T, right.T)
    source = Numbered(captions=captions)
    loader = Theirs(source).load(batch_size)
    theirs = zeroshot_retrieval.evaluate(known, loader, tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10])
    expected = dict(retrieved(theirs))
    equal(recalls(dict(Retrieval(source).run(Embedder(known, tokenizer)))), expected)
    assert len(set(expected.values())) == 6 and 0.1 < min(expected.values()) < 0.5 < max(expected.values()) < 1


@pytest.mark.parametrize("seed", range(4))
def test_every_query_is_found_by_both_or_neither(seed: int) -> None:
    captions = captions_of(20 + 9 * seed)
    right = right_pairs(captions)
    images = F.normalize(normal(seed, len(captions), 6), dim=1)
    texts = F.normalize(right.float() @ images + normal(9 + seed, len(right), 6) / 2, dim=1)
    scores = texts @ images.T
    assert untied(scores, right) and untied(scores.T, right.T)
    of_images, of_texts = ranks_both_ways(images, texts, right.T.nonzero().T, block=16)
    for k in (1, 5, 10):
        for ranks, way, own in ((of_texts, scores, right), (of_images, scores.T, right.T)):
            recall = zeroshot_retrieval.batchify(zeroshot_retrieval.recall_at_k, way, own, 7, "cpu", k=k)
            assert torch.equal(recall > 0, ranks < k)


def test_from_pictures_to_recall_with_open_clips_towers(model: CLIP, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The whole way: our model in open_clip, its preparation of pictures, its tokenizer, its towers; their recall."""
    stem = PatchStemConfig(bias=False)
    image = ViTConfig(image_size=32, patch_size=8, width=32, depth=2, heads=2, stem=stem, pre_norm=True, eps=1e-5)
    mine = stir(replace(model.config, image=image).build(), 5)
    written = OpenCLIP().write(mine.config, mine.state_dict())
    save_file(written.state, tmp_path / written.file)
    (tmp_path / CONFIG).write_text(json.dumps(written.beside[CONFIG]))
    tokenizer.save(tmp_path / "tokenizer.json")
    folder = f"local-dir:{tmp_path}"
    peer, _, prepare = open_clip.create_model_and_transforms(folder, require_pretrained=True)
    captions = captions_of(24)
    source, right = Numbered(captions=captions, noise=True), right_pairs(captions)
    embedder = Embedder(mine, tokenizer)
    scores = embedder.texts([text for some in captions for text in some]) @ embedder.images(source).T
    assert untied(scores, right) and untied(scores.T, right.T)
    loader, reads = Theirs(source, prepare).load(10), open_clip.get_tokenizer(folder)
    theirs = zeroshot_retrieval.evaluate(peer.eval(), loader, reads, "cpu", amp=False, recall_k_list=[1, 5, 10])
    equal(recalls(dict(Retrieval(source).run(embedder))), dict(retrieved(theirs)))
