from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pictura.config import load
from pictura.data.frames import Frames
from pictura.data.source import BadSample, Example, Source, SourceConfig
from pictura.evaluation.actions import Actions, Pool, Probe, pool_frames, pooled
from pictura.evaluation.base import EvaluatorConfig
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Confusion, Gallery
from pictura.evaluation.report import write_report
from pictura.evaluation.zeroshot import classifier
from tests.data.files import write
from tests.data.films import film

SCENES = {"kind": "scenes", "gives": ["clip"], "count": 14, "frames": 3, "image_size": 32}


class Fades(Source):
    """Coloured clips of `t` frames that grow dark, label 0, or bright, label 1: the same frames the other way round."""

    provides = frozenset({"clip", "label"})
    class_names = ("growing dark", "growing bright")

    def __init__(self, n: int, t: int = 4, seed: int = 0, broken: Sequence[int] = ()) -> None:
        self.n, self.t, self.seed, self.broken = n, t, seed, broken

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Example:
        if index in self.broken:
            raise BadSample(f"fade {index}", "made to be broken")
        random = np.random.default_rng((self.seed, index))
        colour, label = random.integers(100, 256, (1, 32, 32, 3)), int(random.integers(2))
        clip = np.concatenate([colour * (self.t - frame) // self.t for frame in range(self.t)]).astype(np.uint8)
        return cast(Example, {"key": f"fade {index}", "clip": clip[::-1] if label else clip, "label": label})


def features(embedder: Embedder, source: Source, index: int) -> torch.Tensor:
    return embedder.images(list(cast(Any, source[index])["clip"]))


def test_numbers_are_those_of_a_plain_loop(embedder: Embedder, tmp_path: Path) -> None:
    source = load(SourceConfig, SCENES).build()
    evaluator = Actions(source, ("a thing {}", "{}"), name="made")
    assert evaluator.panels() == []
    values = dict(evaluator.run(embedder))  # batches of 4 frames, and clips of 3
    weights = classifier(embedder, source.class_names, ("a thing {}", "{}"))
    hits: dict[int, list[bool]] = {}
    first_five = []
    for i in range(len(source)):
        mean = F.normalize(features(embedder, source, i).mean(0), dim=0)
        order = (mean @ weights).argsort(descending=True).tolist()
        label = source[i]["label"]
        hits.setdefault(label, []).append(order[0] == label)
        first_five.append(label in order[:5])
    flat = [hit for some in hits.values() for hit in some]
    assert values == {
        "actions/made/top1": pytest.approx(sum(flat) / 14),
        "actions/made/top5": pytest.approx(sum(first_five) / 14),
        "actions/made/mean_per_class": pytest.approx(sum(sum(some) / len(some) for some in hits.values()) / len(hits)),
    }
    confusion, gallery = evaluator.panels()
    assert isinstance(confusion, Confusion) and isinstance(gallery, Gallery) and gallery.large
    sheets = [picture.image for _, pictures in gallery.rows for picture in pictures]
    assert {sheet.size for sheet in sheets if sheet is not None} == {(96, 32)}  # three frames side by side
    write_report(tmp_path / "r.html", title="t", metrics=values, panels=evaluator.panels())


@pytest.mark.parametrize("pool", ["mean", "order"])
@pytest.mark.parametrize(("t", "size"), [(4, 3), (3, 4), (5, 2), (1, 4), (2, 64)])
def test_clips_across_batches(embedder: Embedder, t: int, size: int, pool: Pool) -> None:
    source = Fades(7, t, broken=[0, 3, 6])
    embedder.batch_size = size
    parts = list(pooled(embedder, Frames(Fades(7, t, broken=[3, 6, 0])), pool))
    index = torch.cat([batch["index"] for _, batch in parts]).tolist()
    assert index == [1, 2, 4, 5]
    assert torch.cat([batch["label"] for _, batch in parts]).tolist() == [source[i]["label"] for i in index]
    for i, row in zip(index, torch.cat([rows for rows, _ in parts]), strict=True):
        frames = features(embedder, source, i)
        expected = [frames.mean(0)]
        if pool == "order":
            change = [frames[t - 1 - i] - frames[i] for i in range(t // 2)] or [torch.zeros(24)]
            expected.append(torch.stack(change).mean(0))
        torch.testing.assert_close(row, torch.cat(expected), atol=1e-5, rtol=0)
    assert len(embedder.bad) == 3


def test_pooling_knows_the_order_only_if_asked() -> None:
    rows = torch.randn(2, 5, 3)
    torch.testing.assert_close(pool_frames(rows, "mean"), pool_frames(rows.flip(1), "mean"))
    there, back = pool_frames(rows, "order"), pool_frames(rows.flip(1), "order")
    torch.testing.assert_close(there[:, :3], back[:, :3])
    torch.testing.assert_close(there[:, 3:], -back[:, 3:])
    assert there[:, 3:].abs().max() > 0.1


def test_a_probe_sees_what_came_first_where_the_mean_does_not(embedder: Embedder) -> None:
    seen = {}
    for pool in ("mean", "order"):
        evaluator = Actions(Fades(60), train=Fades(80, seed=1), pool=cast(Pool, pool))
        values = dict(evaluator.run(embedder))
        assert set(values) == {
            "actions/top1", "actions/mean_per_class",
            "actions/probe/top1", "actions/probe/mean_per_class", "actions/probe/l2",
        }  # fmt: skip
        seen[pool] = values["actions/probe/top1"], values["actions/top1"]
        assert [panel.title for panel in evaluator.panels()][2:] == [
            "actions/probe: confusion", "actions/probe: best and worst",
        ]  # fmt: skip
    assert seen["order"][0] > 0.9
    assert seen["mean"][0] < 0.7
    assert seen["order"][1] == seen["mean"][1]  # words do not read the order


def test_a_probe_alone_is_the_same(embedder: Embedder) -> None:
    together = dict(Actions(Fades(20), train=Fades(30, seed=1), pool="order").run(embedder))
    alone = Probe(Frames(Fades(30, seed=1)), Frames(Fades(20)), "order", "actions/probe")
    assert dict(alone.run(embedder)) == {name: value for name, value in together.items() if "probe" in name}


def test_a_broken_model_is_never_right(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (torch.nan, 1.0):
        monkeypatch.setattr(embedder.model, "encode_image", lambda image, v=value: torch.full((len(image), 24), v))
        monkeypatch.setattr(embedder.model, "encode_text", lambda text: torch.ones(len(text), 24))
        assert set(dict(Actions(Fades(6)).run(embedder)).values()) == {0.0}


def test_films_in_folders(embedder: Embedder, tmp_path: Path) -> None:
    fades = Fades(6)
    for i in range(6):
        example: Any = fades[i]
        write(tmp_path / fades.class_names[example["label"]] / f"{i}.mp4", film(list(example["clip"])))
    write(tmp_path / fades.class_names[0] / "x.mp4", b"no film")
    config = load(EvaluatorConfig, {"kind": "actions", "data": {"kind": "videos", "path": str(tmp_path), "frames": 4}})
    evaluator = config.build()
    assert set(dict(evaluator.run(embedder))) == {"actions/top1", "actions/mean_per_class"}
    assert evaluator.outcome[0].shape == (6,)
    assert [key for key, _ in embedder.bad] == [str(tmp_path / fades.class_names[0] / "x.mp4")]


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="pool: order is for a probe, which words cannot read; give `train`"):
        load(EvaluatorConfig, {"kind": "actions", "data": SCENES, "pool": "order"})
    with pytest.raises(ValueError, match="templates: 'acton' is no set"):
        load(EvaluatorConfig, {"kind": "actions", "data": SCENES, "templates": "acton"})
    plain = {"kind": "scenes", "gives": ["image", "label"], "objects": [1, 1], "count": 2}
    with pytest.raises(ValueError, match="actions: the data has no clip, only image, label"):
        load(EvaluatorConfig, {"kind": "actions", "data": plain}).build()
    with pytest.raises(ValueError, match="actions: train: the data has no clip"):
        load(EvaluatorConfig, {"kind": "actions", "data": SCENES, "train": plain}).build()
    with pytest.raises(ValueError, match="class_names: 3 given, but the data has 2 classes"):
        Actions(Fades(2), class_names=("a", "b", "c"))
    with pytest.raises(ValueError, match="'a' names two classes"):
        Actions(Fades(2), class_names=("a", "a"))
    with pytest.raises(ValueError, match="actions/probe: train has clips of 3 frames, and the data of 4"):
        Actions(Fades(2), train=Fades(2, 3), pool="order")
    other = load(SourceConfig, SCENES).build()
    with pytest.raises(ValueError, match="the data has 2 classes and train 8, not the same ones"):
        Actions(Fades(2), train=other)
