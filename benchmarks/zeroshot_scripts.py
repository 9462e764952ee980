"""What somebody writes who classifies a folder of pictures with a peer: two scripts, from a cold start to a CSV.

`python -m benchmarks.zeroshot_scripts {open_clip,transformers} --model FOLDER --pictures FOLDER --labels FILE
--answers CSV`. open_clip's follows its README (zero-shot classification) and its own ImageNet evaluation
(open_clip_train/zero_shot.py); Hugging Face's follows the pipeline's page.
"""

from __future__ import annotations

import argparse
import csv
from importlib import resources
from pathlib import Path
from typing import Any

BATCH, WORKERS = 64, 2
MANY = 256  # pictures of a batch of the pipeline, which reads all labels anew for each
HEADS = "path", "label", "probability"
ONE = "a photo of a {}."


def files(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("*.jpg"))


def lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


class Files:
    """A data set for a DataLoader: the files of a folder, transformed."""

    def __init__(self, paths: list[str], transform: Any) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        with Image.open(self.paths[index]) as image:
            return self.transform(image)


def with_open_clip(a: argparse.Namespace) -> None:
    """Texts and pictures under its autocast; `imagenet` are its own eighty templates."""
    import open_clip
    import torch
    from open_clip_train.precision import get_autocast
    from torch.utils.data import DataLoader

    name, paths, labels = f"local-dir:{a.model}", files(a.pictures), lines(a.labels)
    model, _, transform = open_clip.create_model_and_transforms(name, precision=a.precision, device=a.device)
    model.eval()
    tokenizer, kind = open_clip.get_tokenizer(name), open_clip.get_input_dtype(a.precision)
    autocast = get_autocast(a.precision, device_type=a.device)
    templates = open_clip.OPENAI_IMAGENET_TEMPLATES if a.templates == "imagenet" else [a.templates]
    pictures: Any = Files(paths, transform)
    loader: Any = DataLoader(pictures, batch_size=BATCH, num_workers=WORKERS)
    rows: list[tuple[str, float]] = []
    with torch.inference_mode(), autocast():
        classifier = open_clip.build_zero_shot_classifier(model, tokenizer, labels, templates, device=a.device)
        for image in loader:
            features = model.encode_image(image.to(a.device, kind), normalize=True)
            chances = (model.logit_scale.exp() * features @ classifier).softmax(dim=-1)
            best = chances.float().max(dim=1)
            rows += [(labels[k], chance) for chance, k in zip(*map(torch.Tensor.tolist, best), strict=True)]
    write(a.answers, paths, rows)


def with_transformers(a: argparse.Namespace) -> None:
    """In float32 by "fp32", else in bf16. The pipeline takes one template: of `imagenet` every sentence is a candidate,
    and a label's probability the sum of those of its sentences."""
    import torch
    import yaml
    from transformers import pipeline

    paths, labels = files(a.pictures), lines(a.labels)
    kind = torch.float32 if a.precision == "fp32" else torch.bfloat16
    given, template, batch, workers = {label: label for label in labels}, a.templates, MANY, WORKERS
    if a.templates == "imagenet":
        eighty = yaml.safe_load((resources.files("pictura") / "prompts/imagenet.yaml").read_text())["templates"]
        given, template = {one.replace("{}", label): label for label in labels for one in eighty}, "{}"
        batch, workers = MANY // 2, 1  # each holds all sentences' tokens for each picture: more do not fit 24 GiB
    classify: Any = pipeline("zero-shot-image-classification", model=str(a.model), device=a.device, dtype=kind)
    answers = classify(
        paths, candidate_labels=list(given), hypothesis_template=template, batch_size=batch, num_workers=workers
    )
    rows: list[tuple[str, float]] = []
    for found in answers:
        chances = dict.fromkeys(labels, 0.0)
        for one in found:
            chances[given[one["label"]]] += one["score"]
        rows.append(max(chances.items(), key=lambda pair: pair[1]))
    write(a.answers, paths, rows)


def write(file: Path, paths: list[str], rows: list[tuple[str, float]]) -> None:
    """A line of heads, and path, label, probability, as `pictura classify --top 1 --csv` writes them."""
    with file.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out)
        table.writerow(HEADS)
        table.writerows((path, *row) for path, row in zip(paths, rows, strict=True))


def read(file: Path) -> list[tuple[str, str, float]]:
    """(path, label, probability) of each picture, as either side has written them."""
    with file.open(encoding="utf-8", newline="") as rows:
        heads, *lines = csv.reader(rows)
    assert tuple(heads) == HEADS, heads
    return [(path, label, float(chance)) for path, label, chance in lines]


SCRIPTS = {"open_clip": with_open_clip, "transformers": with_transformers}


def main() -> None:
    p = argparse.ArgumentParser(prog="python -m benchmarks.zeroshot_scripts", description=__doc__)
    p.add_argument("script", choices=SCRIPTS)
    for name in ("--model", "--pictures", "--labels", "--answers"):
        p.add_argument(name, type=Path, required=True)
    p.add_argument("--templates", default="imagenet", help="`imagenet`, or one sentence with {} (default: imagenet)")
    p.add_argument("--device", default="cpu")
    p.add_argument("--precision", default="amp_bf16", help="one of open_clip's (default: amp_bf16)")
    a = p.parse_args()
    SCRIPTS[a.script](a)


if __name__ == "__main__":
    main()
