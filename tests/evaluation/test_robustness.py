import re
import statistics
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from pictura.config import load
from pictura.data.corrupted import CorruptedConfig
from pictura.data.corruptions import STANDARD
from pictura.data.scenes import ScenesConfig
from pictura.data.source import Source, SourceConfig
from pictura.data.text import Tokenizer
from pictura.evaluation.accuracy import AccuracyConfig
from pictura.evaluation.base import EvaluatorConfig
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Gallery, Table
from pictura.evaluation.probe import ProbeConfig
from pictura.evaluation.report import write_report
from pictura.evaluation.retrieval import RetrievalConfig
from pictura.evaluation.robustness import Remembering, RobustnessConfig, Severities
from pictura.evaluation.zeroshot import ZeroShotConfig
from pictura.models.clip import CLIP
from tests.evaluation.conftest import Made

NAMES = ("red", "green dog", "blue", "old house")


@dataclass(frozen=True, kw_only=True)
class MadeConfig(SourceConfig):
    broken: tuple[int, ...] = (0, 5)

    def build(self) -> Source:
        return Made(16, labels=[i * 3 % 4 for i in range(16)], names=NAMES, broken=self.broken)


ZERO = ZeroShotConfig(data=MadeConfig(), templates=("a {}", "the {}"))


def test_numbers_are_those_of_evaluators_run_by_hand(embedder: Embedder, tmp_path: Path) -> None:
    kinds, severities = ("contrast", "fog", "saturate"), (2, 5)
    config = RobustnessConfig(of=ZERO, corruptions=kinds, severities=severities, seed=3, name="made")
    evaluator = config.build()
    evaluator.check(embedder.model)
    assert evaluator.panels() == []
    values = dict(evaluator.run(embedder))
    expected = {"robustness/made/clean/top1": dict(ZERO.build().run(embedder))["zeroshot/top1"]}
    by_hand = {}
    for kind in kinds:
        shares = []
        for severity in severities:
            data = CorruptedConfig(of=MadeConfig(), corruption=kind, severity=severity, seed=3)
            hand = ZeroShotConfig(data=data, templates=ZERO.templates).build()
            shares.append(dict(hand.run(embedder))["zeroshot/top1"])
        by_hand[kind] = shares
        expected[f"robustness/made/{kind}/top1"] = sum(shares) / 2
    expected["robustness/made/mean/top1"] = statistics.fmean(sum(shares) / 2 for shares in by_hand.values())
    assert list(values) == list(expected)
    assert values == pytest.approx(expected)
    assert len({*values.values()}) > 2, "or nothing would be shown"
    assert embedder.bad.rows()[0][0] == "made/0" and len(embedder.bad) == 2
    assert dict(evaluator.run(embedder)) == values
    charts, table, gallery = evaluator.panels()
    assert isinstance(charts, Severities) and isinstance(table, Table) and isinstance(gallery, Gallery)
    assert [row[0] for row in table.rows] == list(kinds)
    assert table.rows[1][1:3] == tuple(f"{100 * share:.1f} %" for share in by_hand["fog"])
    assert table.columns == ("corruption", "2", "5", "mean", "of the clean")
    assert [heading for heading, _ in gallery.rows] == ["clean", "weather", "digital", "extra"]
    pictures = [picture for _, some in gallery.rows for picture in some]
    assert [picture.lines[0].text for picture in pictures] == ["clean", "fog", "contrast", "saturate"]
    shown = [picture.image.tobytes() for picture in pictures if picture.image is not None]
    assert len({*shown}) == 4, "all of one picture that can be read"
    write_report(tmp_path / "r.html", title="t", metrics=values, panels=evaluator.panels())


def test_texts_are_read_once(embedder: Embedder, model: CLIP, monkeypatch: pytest.MonkeyPatch) -> None:
    read, encode = [], model.encode_text
    monkeypatch.setattr(model, "encode_text", lambda ids: read.append(len(ids)) or encode(ids))
    dict(RobustnessConfig(of=ZERO, corruptions=("contrast", "fog"), severities=(1, 2)).build().run(embedder))
    assert sum(read) == 8, "four names, two templates"


def test_remembered_texts_are_those_asked_for(embedder: Embedder) -> None:
    remembering = Remembering(embedder)
    for asked in (["a dog", "cat"], ["a dog", "cat"], ["cat"], "cat", ["cat", "a dog"]):
        assert torch.equal(remembering.texts(asked), embedder.texts(asked))
    remembering.texts(["cat"]).zero_()
    assert remembering.texts(["cat"]).any(), "a copy, for each to change"
    assert remembering.bad is embedder.bad and remembering.batch_size == embedder.batch_size


def test_charts_go_from_the_clean_share_to_the_worst() -> None:
    groups = {"noise": {"gaussian_noise": {5: 0.1, 1: 0.5}, "shot_noise": {1: 0.4, 5: 0.2}}, "blur": {"fog": {3: 1.0}}}
    page = Severities("t", groups, 0.75).html()
    charts = list(ET.fromstring(page))
    assert len(charts) == 2 and "step" not in page
    assert re.findall(r"<title>severity (\d): ([\d.]+)<", page)[:3] == [("0", "75"), ("1", "50"), ("5", "10")]
    assert "10.0 %" in "".join(charts[0].itertext())


@dataclass(frozen=True, kw_only=True)
class CaptionsConfig(SourceConfig):
    def build(self) -> Source:
        return Made(3, captions=[["a dog"], ["the cat"], ["tree"]])


def test_mistakes_are_named(embedder: Embedder) -> None:
    scenes: dict[str, Any] = {"gives": ("image", "label"), "objects": (1, 1), "count": 4}
    with pytest.raises(ValueError, match=r"^of: probe has no `data` to corrupt; try zeroshot or accuracy"):
        RobustnessConfig(of=ProbeConfig(train=ScenesConfig(**scenes), test=ScenesConfig(**scenes)))
    for key, value, said in (
        ("corruptions", (), "corruptions: none given"),
        ("corruptions", ("fog", "fog"), r"corruptions: \['fog', 'fog'\] names one twice"),
        ("corruptions", ("frogs",), "there is no 'frogs'; did you mean 'frost'"),
        ("severities", (), "severities: none given"),
        ("severities", (3, 9), "severity: 9 must be"),
    ):
        with pytest.raises(ValueError, match=said):
            RobustnessConfig(of=ZERO, **{key: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no label"):
        RobustnessConfig(of=ZeroShotConfig(data=CaptionsConfig())).build()
    retrieval = RobustnessConfig(of=RetrievalConfig(data=CaptionsConfig()), name="x").build()
    with pytest.raises(ValueError, match=r"robustness/x: of: it yields retrieval.*, but no top1; try zeroshot"):
        dict(retrieval.run(embedder))
    with pytest.raises(ValueError, match="no head"):
        RobustnessConfig(of=AccuracyConfig(data=MadeConfig())).build().check(embedder.model)


def test_a_recipe_names_it_by_kind(tokenizer: Tokenizer) -> None:
    scenes = {"kind": "scenes", "gives": ["image", "label"], "objects": [1, 1], "count": 6, "label_of": "shape"}
    words = {"kind": "robustness", "of": {"kind": "zeroshot", "data": scenes}, "severities": [3], "seed": 2}
    config = load(EvaluatorConfig, words)
    assert isinstance(config, RobustnessConfig) and isinstance(config.of, ZeroShotConfig)
    assert (config.corruptions, config.severities, config.seed) == (STANDARD, (3,), 2)
    assert config.build().title == "robustness"
