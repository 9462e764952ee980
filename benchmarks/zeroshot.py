"""Zero-shot classification of a folder of JPEG files, as a whole process: from a cold start to a file of answers.

Ours is one command, `pictura classify MODEL FOLDER --labels FILE --templates imagenet --top 1 --csv FILE`. The peers
are the scripts of `zeroshot_scripts.py`, which write the same table of path, label and probability. All hold the same
random weights of ViT-B/32, each from a folder on disk in its own project's layout, and look at the same drawn pictures.

The process that compares makes one temporary folder for all its cases, tells it to both sides by an environment
variable, and removes it at its end: the side that comes first writes pictures and models, the other finds them.
"""

from __future__ import annotations

import atexit
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from . import measure, zeroshot_scripts
from .harness import MIB, ROOT, Case, Side

if TYPE_CHECKING:
    import torch

    from pictura.models.clip import CLIPConfig

SHARED = "PICTURA_BENCHMARK_FOLDER"
SIZE = (375, 500)  # y and x of a picture, ImageNet's usual
SCALE = 100.0  # the inverse temperature of every published CLIP
SECOND = {"missile": "projectile", "sunglasses": "sunglass"}  # ImageNet calls two classes each by these names


@cache
def shared() -> Path:
    """The folder that both sides of a run read: what the parent says, or one of our own that goes with this process."""
    if told := os.environ.get(SHARED):
        return Path(told)
    folder = Path(tempfile.mkdtemp(prefix="pictura-benchmark-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def once(name: str, make: Callable[[Path], object]) -> Path:
    """`name` within the shared folder, made where it is not there yet, whole or not at all."""
    place = shared() / name
    if not place.exists():
        aside = place.with_name(f".{name}")
        shutil.rmtree(aside, ignore_errors=True)
        make(aside)
        aside.rename(place)
    return place


def draw(folder: Path, count: int, size: tuple[int, int] = SIZE) -> None:
    """JPEG files 00000.jpg, …: pieces of noise whose spectrum falls as that of photographs does, each with a contrast
    and colours of its own, so that they take as long to decode, and no two are the same."""
    import numpy as np
    from PIL import Image

    random, (height, width), wide = np.random.default_rng(0), size, 2 * max(size)
    frequency = np.hypot(np.fft.fftfreq(wide)[:, None], np.fft.rfftfreq(wide)) ** 1.2
    frequency[0, 0] = math.inf  # no mean
    fields = []
    for _ in range(2):
        field = np.fft.irfft2(np.fft.rfft2(random.standard_normal((3, wide, wide))) / frequency, (wide, wide))
        fields.append((field / field.std()).astype(np.float32).transpose(1, 2, 0))  # [y x c]
    folder.mkdir()
    for number in range(count):
        y, x = random.integers(wide - height), random.integers(wide - width)
        piece = fields[number % 2][y : y + height, x : x + width]
        colours = random.normal(0, 20, (3, 3)) + random.uniform(10, 60)  # grey for the most part
        pixels = piece @ colours.astype(np.float32) + random.uniform(80, 170, 3).astype(np.float32)
        file = folder / f"{number:05}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)


def names(count: int) -> list[str]:
    """The first so many of the names that open_clip gives ImageNet's 1,000 classes, all different."""
    from open_clip import IMAGENET_CLASSNAMES

    found: dict[str, None] = {}
    for name in IMAGENET_CLASSNAMES:
        found[SECOND[name] if name in found else name] = None
    return list(found)[:count]


@dataclass(frozen=True, kw_only=True)
class ZeroshotFolder(Case):
    """Pictures per second of the whole process, its start included.

    templates: of both sides, by name, or one sentence. With several, the peer `transformers` adds up probabilities of
    sentences, where ours and open_clip's average their vectors: its answers are others.
    precision: the peer's, "amp_bf16" or "fp32"; None: the faster one here, since bf16 on a processor without its
    instructions is fifty times slower than float32. Ours chooses by the same rule.
    """

    script: str  # of zeroshot_scripts.SCRIPTS
    pictures: int
    labels: int
    unit: str = "images/s"
    templates: str = "imagenet"
    precision: str | None = None

    warm_up: ClassVar[int] = 0  # `prepared` runs once over two pictures, two labels, one template
    rounds: ClassVar[int] = 3

    def config(self) -> CLIPConfig:
        """ViT-B/32 with the exact GELU, as open_clip's and LAION's."""
        from pictura.config import sized
        from pictura.models.clip import CLIPConfig

        config: Any = sized(CLIPConfig, "ViT-B/32")
        image, text = replace(config.image, activation="gelu"), replace(config.text, activation="gelu")
        built: CLIPConfig = replace(config, image=image, text=text)
        return built

    def environment(self, side: Side) -> dict[str, str]:
        return {SHARED: str(shared())}

    def model(self, to: Literal["pictura", "open_clip", "huggingface"]) -> Path:
        """A folder of the model as `to` has it, float32 as published ones."""
        import torch

        from pictura.data.vocabularies import CLIPTokenizerConfig
        from pictura.weights.convert import convert
        from pictura.weights.folder import save_folder

        def ours(folder: Path) -> None:
            torch.manual_seed(0)
            model = self.config().build()
            model.logit_scale.data.fill_(math.log(SCALE))
            save_folder(folder, model, CLIPTokenizerConfig().build(lambda: ()))

        def saved_by_transformers(folder: Path) -> None:
            from transformers import AutoTokenizer, CLIPModel

            convert(source, folder, "huggingface")
            CLIPModel.from_pretrained(folder).save_pretrained(folder)
            AutoTokenizer.from_pretrained(folder).save_pretrained(folder)

        source = once("model-pictura", ours)
        if to == "huggingface":
            return once("model-huggingface", saved_by_transformers)
        return source if to == "pictura" else once("model-open_clip", lambda folder: convert(source, folder, to))

    def ours(self, device: str) -> Callable[[], torch.Tensor]:
        words = ["-m", "pictura", "classify", str(self.model("pictura"))]
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}  # the command takes a GPU where there is one

        def classify(pictures: Path, labels: Path, templates: str, answers: Path) -> None:
            asked = ["--labels", str(labels), "--templates", templates, "--top", "1", "--csv", str(answers)]
            run([*words, str(pictures), *asked], hidden)

        return self.prepared(classify)

    def peer(self, device: str) -> Callable[[], torch.Tensor]:
        model = self.model("open_clip" if self.script == "open_clip" else "huggingface")
        words = ["-m", zeroshot_scripts.__name__, self.script, "--model", str(model), "--device", device]
        words += ["--precision", self.precision or best_precision(device)]

        def classify(pictures: Path, labels: Path, templates: str, answers: Path) -> None:
            asked = ["--labels", str(labels), "--templates", templates, "--answers", str(answers)]
            run([*words, "--pictures", str(pictures), *asked])

        return self.prepared(classify)

    def prepared(self, classify: Callable[[Path, Path, str, Path], None]) -> Callable[[], torch.Tensor]:
        """`classify(pictures, labels, templates, answers)` over the whole folder, once it has run over a small one, so
        that code and weights lie in the page cache. The call returns [n] probabilities of the best labels, by the
        files' names.
        """
        import torch

        def given(pictures: int, labels: int) -> tuple[Path, Path]:
            texts = "\n".join(names(labels)) + "\n"
            lines = once(f"labels-{labels}.txt", lambda file: file.write_text(texts))
            return once(f"pictures-{pictures}", lambda folder: draw(folder, pictures)), lines

        with tempfile.TemporaryDirectory() as folder:
            classify(*given(2, 2), zeroshot_scripts.ONE, Path(folder) / "answers")
        pictures, labels = given(self.pictures, self.labels)

        def call() -> torch.Tensor:
            with tempfile.TemporaryDirectory() as folder:
                answers = Path(folder) / "answers"
                classify(pictures, labels, self.templates, answers)
                rows = sorted(zeroshot_scripts.read(answers))
            assert [Path(row[0]).name for row in rows] == sorted(file.name for file in pictures.iterdir())
            return torch.tensor([row[2] for row in rows])

        return call

    def peak_memory(self, device: str) -> float:
        return measure.children_peak_memory() / MIB


def best_precision(device: str) -> str:
    """open_clip's name for bf16 under autocast, or for float32 where the processor has no products of bf16."""
    from pictura.layers.linear import runs_here

    return "amp_bf16" if device != "cpu" or runs_here() else "fp32"


def run(words: Sequence[str], environment: dict[str, str] | None = None) -> None:
    """A Python of its own from start to end, off the hub; RuntimeError where it fails."""
    mine = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}  # bytecode as users have it
    mine |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"} | (environment or {})
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=mine, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip().splitlines()[-3:]
        raise RuntimeError(f"{' '.join(words[:4])} ended with code {done.returncode}: {' | '.join(told)}")


BEST = "bf16 where the processor multiplies it, else float32"
OPEN_CLIP = f"build_zero_shot_classifier with its 80 templates, DataLoader of 2 workers, batches of 64, {BEST}"
PIPELINE = f"zero-shot-image-classification pipeline, {BEST}"
SENTENCES = (
    f"{PIPELINE}, batch_size 128, num_workers 1; it takes one template, so each of a label's 80 sentences is a"
    " candidate, and their probabilities are added; it splits all candidates into tokens for every picture, and reads"
    " them for every batch"
)
LABELS = (
    f"{PIPELINE}, batch_size 256, num_workers 2; it splits the labels into tokens for every picture, and reads them for"
    " every batch"
)

CASES = tuple(
    ZeroshotFolder(
        name="zeroshot_folder", case=f"{pictures}_pictures_{labels}_labels_{peer}", script=script, peer_name=package,
        peer_setting=setting, templates=templates, pictures=pictures, labels=labels, items=pictures,
        tolerance=tolerance, opt_in=pictures > 500,
    )
    for pictures, labels in ((500, 100), (5000, 1000))
    for peer, script, package, setting, templates, tolerance in (
        ("open_clip", "open_clip", "open_clip_torch", OPEN_CLIP, "imagenet", 0.2),
        ("transformers", "transformers", "transformers", SENTENCES, "imagenet", None),
        ("transformers_one_template", "transformers", "transformers", LABELS, zeroshot_scripts.ONE, 0.2),
    )
    if (pictures, peer) != (5000, "transformers")  # 80,000 candidates for each picture of a batch fit no memory
)  # fmt: skip
