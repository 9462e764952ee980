"""Photographs in COCO's form, from end to end: trained on, measured as the official code does, and drawn."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import pictura
from pictura.cli import main
from pictura.config import to_yaml
from pictura.config.loader import load
from pictura.data.coco_objects import CocoObjects, CocoObjectsConfig
from pictura.evaluation.coco_results import to_results
from pictura.evaluation.detect import detected, vocabulary
from pictura.evaluation.detection import DetectionConfig
from pictura.models.vild_finding import Query
from pictura.recipe import Recipe
from tests.data.files import shared

LEARNT = 16  # photographs
STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # in the order of pycocotools


def learnt(file: Path, few: Path) -> list[str]:
    """Write the first photographs of `file` as `few`; returns their names."""
    content = json.loads(file.read_text())
    content["images"] = content["images"][:LEARNT]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in ids]
    few.write_text(json.dumps(content))
    return [image["file_name"] for image in content["images"]]


@pytest.mark.slow
def test_a_detector_of_photographs_is_trained_measured_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, few = shared("coco-mini") / "instances_train2017.json", tmp_path / "few.json"
    folder, names = file.parent / "train2017", learnt(file, few)
    data: dict[str, Any] = {"kind": "coco_objects", "path": str(few), "images": str(folder), "masks": True}
    recipe = {
        "about": "a detector that learns a few photographs by heart",
        "model": {
            "kind": "vild", "width": 64, "head": {"width": 96}, "masks": True, "proposals": 100, "detections": 50,
            "image": {"kind": "resnet", "block": "basic", "layers": [1, 1, 1, 1], "width": 32, "image_size": 192},
            "rpn_convs": 1, "logit_scale": 2.3, "embed_dim": 128,
        },
        "objectives": {"detection": {"kind": "detection", "regions": 64}},
        "data": data,
        "view": {"kind": "jitter", "image_size": 192, "scale": [0.9, 1.1]},
        "loader": {"batch_size": 8},
        "optimizer": {"kind": "adamw", "lr": 2e-3, "weight_decay": 0.05},
        "training": {"steps": 250, "precision": "bf16"},
        "evaluation": {"coco": {"kind": "detection", "data": data}},
    }  # fmt: skip
    (tmp_path / "photos.yaml").write_text(to_yaml(load(Recipe, recipe)))
    assert main(["train", str(tmp_path / "photos.yaml"), "--out", str(tmp_path / "run")]) == 0
    model = pictura.load(tmp_path / "run" / "model")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["detection/AP50"] > 0.1
    config = CocoObjectsConfig(path=file, masks=True)
    results = dict(DetectionConfig(data=config).build().run(model.embedder))
    source = config.build()
    assert isinstance(source, CocoObjects)
    query = Query(*vocabulary(model.embedder, source.class_names))
    found = [one for one, _, _ in detected(model.embedder, source, query)]
    rows, written = to_results(found, source.image_ids, source.category_ids), tmp_path / "results.json"
    for kind, prefix in (("bbox", "detection/"), ("segm", "detection/mask/")):
        # pycocotools takes the size of a thing from its box where there is one, of masks too
        told = [{key: one[key] for key in one if key != "bbox" or kind == "bbox"} for one in rows]
        written.write_text(json.dumps(told))
        with redirect_stdout(io.StringIO()):
            official = COCO(str(file))
            evaluator = COCOeval(official, official.loadRes(str(written)), kind)
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
        assert evaluator.stats[1] > 0.01
        assert [results[prefix + name] for name in STATS] == pytest.approx(evaluator.stats[:6].tolist(), abs=1e-6)
    pictures = [folder / name for name in names[:3]]
    capsys.readouterr()
    words = ["detect", str(tmp_path / "run" / "model"), *map(str, pictures), "--json", "--threshold", "0.1"]
    assert main([*words, "--out", str(tmp_path / "drawn")]) == 0
    assert any(json.loads(capsys.readouterr().out).values())
    for path in pictures:
        with Image.open(path) as photograph, Image.open(tmp_path / "drawn" / f"{path.stem}.png") as drawn:
            assert drawn.size == photograph.size
