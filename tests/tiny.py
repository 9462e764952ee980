"""The smallest run there is: a recipe that trains in a second, and `pictura` as a user starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pictura.config import to_yaml
from pictura.config.loader import load
from pictura.data.scenes import ScenesConfig
from pictura.recipe import Recipe

TINY: dict[str, Any] = {
    "about": "nothing but quick",
    "model": {
        "kind": "clip",
        "embed_dim": 16,
        "image": {"kind": "vit", "image_size": 16, "patch_size": 8, "width": 32, "depth": 2, "heads": 2}
        | {"pool": "average", "pre_norm": True},
        "text": {"kind": "transformer", "width": 32, "depth": 2, "heads": 2, "context_length": 24},
    },
    "objectives": {"clip": {"kind": "clip"}},
    "data": {"kind": "scenes", "count": 200, "image_size": 16, "objects": [1, 1]},
    "view": {"kind": "none", "image_size": 16},
    "tokenizer": {"kind": "train", "vocab_size": 600, "max_captions": 100},
    "loader": {"batch_size": 16},
    "optimizer": {"kind": "adamw", "lr": 1e-3},
    "schedule": {"kind": "cosine", "warmup": 2},
    "training": {"steps": 20, "precision": "float32", "log_every": 1, "save_every": 5},
}
RETRIEVAL = "evaluation={retrieval: {kind: retrieval, data: {kind: scenes, count: 20, image_size: 16, split: fresh}}}"


def tiny(*overrides: str) -> Recipe:
    """The tiny recipe, with changes."""
    return load(Recipe, TINY, overrides=overrides)


def write_tiny(folder: Path, *overrides: str) -> Path:
    """The tiny recipe as a file."""
    path = folder / "tiny.yaml"
    path.write_text(to_yaml(tiny(*overrides)))
    return path


def with_torn_pictures(place: Path) -> str:
    """A folder of 40 pictures with captions in `place`, two of them torn, as an override of `data`."""
    scenes = ScenesConfig(count=40, image_size=16, seed=3).build()
    (place / "photos").mkdir()
    for n in range(40):
        image = scenes[n]["image"]
        assert isinstance(image, np.ndarray)
        Image.fromarray(image).save(place / "photos" / f"{n:02}.png")
        (place / "photos" / f"{n:02}.txt").write_text(scenes[n]["captions"][0])
    for n in (7, 30):
        (place / "photos" / f"{n:02}.png").write_bytes(b"torn")
    return f"data={{kind: sidecar, path: {place / 'photos'}}}"


def command(*words: str | Path) -> list[str]:
    """`pictura WORDS`, in this Python."""
    return [sys.executable, "-m", "pictura", *map(str, words)]


def environment(**more: str) -> dict[str, str]:
    """One thread and no GPU, so that the machine decides nothing."""
    return os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **more}


def pictura(*words: str | Path, cwd: Path | None = None, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run it to its end."""
    return subprocess.run(
        command(*words), env=environment(**more), cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


def losses(run: Path) -> dict[int, str]:
    """step -> the loss in metrics.jsonl, as it is written: equal text is equal bits."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: repr(line["loss"]) for line in lines if "loss" in line}
