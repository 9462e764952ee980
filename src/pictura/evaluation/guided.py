"""A drawing optimised until a CLIP finds that it shows what a text says: CLIPDraw (Frans et al. 2021); Fernando et al.,
Generative Art Using Neural Visual Grammars and Dual Encoders, 2021.

There is no model of pictures here: what comes out is what this CLIP responds to, and not what the thing looks like.
Much of a high cosine may be texture, a colour or a shape anywhere, which makes the drawing a way to look at a model. A
cosine says little by itself, and nothing between two models: compare it with the first one of the same run.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from pictura.config import Config
from pictura.data.randomness import random_generator
from pictura.evaluation.base import check_reads_texts
from pictura.evaluation.embed import Embedder, Progress, evaluating
from pictura.evaluation.panels import Curves, Gallery, Line, Panel, Picture
from pictura.evaluation.strokes import Strokes
from pictura.models.base import check_positive
from pictura.models.pictures import standardise_

RATES = {"points": 1.0, "widths": 0.2, "colours": 2.0, "opacities": 2.0, "ground": 2.0}  # of `lr`
AREA = (0.7, 0.9)  # of the picture, that a view keeps: CLIPDraw's
MOVED = 0.1  # sides of a view that each of its corners moves at most; CLIPDraw's perspective is stronger
AGAINST = 0.3  # how much a negative text counts: CLIPDraw's
LAST = 0.1  # of the learning rate, at the last step
SHOWN = 320  # pixels of a side in a report
MOST = {"strokes": 1024, "steps": 100_000, "views": 64, "size": 1024, "frames": 100}


@dataclass(frozen=True, kw_only=True)
class GuidedConfig(Config):
    """strokes: of the drawing, at most 1024. steps: of Adam. lr: how far a point moves in a first step, in sides of the
    picture; colours move twice as far, widths a fifth; it falls to a tenth. views: random crops, in a light
    perspective, whose cosines count at each step. negatives: texts that it shall not show, each at 0.3 of the weight.
    size: pixels of a side while it is optimised; None is what the model takes. frames: kept on the way, the first and
    the last among them.
    """

    strokes: int = 64
    steps: int = 250
    lr: float = 0.01
    views: int = 8
    negatives: tuple[str, ...] = ()
    size: int | None = None
    frames: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive(lr=self.lr)
        for key, most in MOST.items():
            value = getattr(self, key)
            if value is not None and not 1 <= value <= most:
                raise ValueError(f"{key}: {value} must be from 1 to {most}")
        if self.frames < 2:
            raise ValueError(f"frames: {self.frames} must be 2 or more: the first and the last")


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The drawing after `step` steps. cosine: of the text and the whole picture, painted at twice the model's
    size and read as the model reads pictures."""

    step: int
    strokes: Strokes
    cosine: float


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What came of `text`. scores: the mean cosine of the views at each step, before it; views are drawn anew for each.
    frames: first to last, the drawing as it began, and as it is."""

    text: str
    scores: list[float]
    frames: list[Frame]

    @property
    def strokes(self) -> Strokes:
        return self.frames[-1].strokes

    def image(self, size: int = 512) -> npt.NDArray[np.uint8]:
        """-> uint8 RGB [y x 3], at any size from 1 to 8192."""
        return self.strokes.image(size)

    def svg(self) -> str:
        """The same drawing as an SVG document."""
        return self.strokes.svg(self.text)

    def film(self, size: int = 256) -> list[Image.Image]:
        """Every frame as a picture."""
        return [Image.fromarray(frame.strokes.image(size)) for frame in self.frames]

    def panels(self) -> list[Panel]:
        """How it came to be: the frames, and the cosines of the steps."""
        note = "What this model responds to, and not what the thing looks like. A cosine is of the whole picture."
        pictures = [
            Picture(image, (Line(f"step {frame.step}", f"{frame.cosine:.3f}"),))
            for frame, image in zip(self.frames, self.film(SHOWN), strict=True)
        ]
        curves = Curves("On the way", {"cosine of the views": [(float(i), s) for i, s in enumerate(self.scores)]})
        return [Gallery(f"“{self.text}”", [("", pictures)], large=True, note=note), curves]


def draw(embedder: Embedder, text: str, config: GuidedConfig | None = None, tell: Progress | None = None) -> Drawing:
    """Draw `text`, so that the model of `embedder` sees it; its weights stay as they are.

    Adam lowers -cos(view, text), the mean over random views: one look at the whole picture is satisfied by noise. On
    one CPU the same seed gives the same drawing, bit for bit. tell: called with ("steps", done, of how many), by
    default the embedder's own `progress`. ValueError for a model that reads no texts alone, or a text that is empty or
    too long.
    """
    c = GuidedConfig() if config is None else config
    check(embedder, "text", text)
    for one in c.negatives:
        check(embedder, "negatives", one)
    targets = embedder.texts([text, *c.negatives]).to(embedder.device)
    weights = torch.tensor([1.0, *[-AGAINST] * len(c.negatives)], device=embedder.device)
    seen = embedder.model.config.image.image_size
    strokes = Strokes.random(c.strokes, c.seed).copy(embedder.device)
    tensors = strokes.tensors()
    optimizer = torch.optim.Adam([{"params": [tensors[k].requires_grad_()], "lr": c.lr * RATES[k]} for k in tensors])
    falls = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: LAST + (1 - LAST) * wave(step / c.steps))
    kept = {round(i * c.steps / (c.frames - 1)) for i in range(c.frames)}
    scores, frames = list[float](), [(0, strokes.copy())]
    with frozen(embedder.model), torch.enable_grad():
        for step in range(c.steps):
            views = looks(strokes.paint(c.size or seen), seen, places(c.seed, step, c.views))
            features = embedder.model.encode_image(standardise_(views, embedder.model.config))
            cosines = F.normalize(features.float(), dim=-1) @ targets.T  # [v u]
            scores.append(float(cosines[:, 0].detach().mean()))
            if not math.isfinite(scores[-1]):
                raise ValueError(f"step {step}: the model gives numbers that are not finite; its weights are broken")
            optimizer.zero_grad()
            (-(cosines @ weights).mean()).backward()
            optimizer.step()
            falls.step()
            strokes.clamp_()
            if step + 1 in kept:
                frames.append((step + 1, strokes.copy()))
            (tell or embedder.tell)("steps", step + 1, c.steps)
    whole = embedder.images([frame.image(2 * seen) for _, frame in frames]) @ targets[0].cpu()
    told = [Frame(step=s, strokes=f, cosine=v) for (s, f), v in zip(frames, whole.tolist(), strict=True)]
    return Drawing(text=text, scores=scores, frames=told)


def check(embedder: Embedder, what: str, text: str) -> None:
    """ValueError for a model that reads no texts, or a text that it cannot read whole."""
    check_reads_texts(embedder.model)
    if embedder.tokenizer is None:
        raise ValueError("this model has no tokenizer, so it cannot read texts")
    room = embedder.model.config.text.context_length
    tokens = embedder.tokenizer([text], 64 * room).shape[1]
    if tokens <= 2:
        raise ValueError(f"{what}: it is empty")
    if tokens > room:
        raise ValueError(f"{what}: {tokens} tokens, and this model reads {room}; use fewer words")


def wave(done: float) -> float:
    """Half a wave, from 1 at 0 to 0 at 1."""
    return (1 + math.cos(math.pi * min(done, 1.0))) / 2


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Inside, in evaluation mode, and no weight asks for a gradient."""
    asking = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        for weight in asking:
            weight.requires_grad_(False)
        with evaluating(model):
            yield
    finally:
        for weight in asking:
            weight.requires_grad_(True)


def places(seed: int, step: int, views: int) -> npt.NDArray[np.float32]:
    """-> [v 3 3], the maps from a view to the picture, in homogeneous coordinates from -1 to 1, of one step: a square
    of 0.7 to 0.9 of the picture's area anywhere, its corners moved a little."""
    draw = random_generator(seed, 0, step, "views")
    half = np.sqrt(draw.uniform(*AREA, (views, 1, 1)))
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    middle = draw.uniform(-1, 1, (views, 1, 2)) * (1 - half)
    return homographies(middle + half * (corners + draw.uniform(-2 * MOVED, 2 * MOVED, (views, 4, 2))), corners)


def homographies(to: npt.NDArray[np.float64], corners: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """to: [v 4 2], where the `corners` [4 2] go -> the maps [v 3 3] that bring them there, their last number 1."""
    rows = np.zeros((len(to), 4, 2, 8))
    near = np.concatenate([corners, np.ones((4, 1))], 1)
    rows[:, :, 0, :3] = rows[:, :, 1, 3:6] = near
    rows[..., 6:] = -to[..., None] * corners[:, None]
    found = np.linalg.solve(rows.reshape(-1, 8, 8), to.reshape(-1, 8, 1))[..., 0]
    return np.concatenate([found, np.ones((len(to), 1))], 1).reshape(-1, 3, 3).astype(np.float32)


def looks(picture: Tensor, size: int, maps: npt.NDArray[np.float32]) -> Tensor:
    """picture: [3 y x], maps: [v 3 3] -> [v 3 size size], bilinear; beyond its edge the picture goes on as it ends."""
    centres = (torch.arange(size, device=picture.device) + 0.5) * 2 / size - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    at = torch.stack([x, y, torch.ones_like(x)], -1) @ torch.from_numpy(maps).to(picture.device)[:, None].mT
    grid = at[..., :2] / at[..., 2:]
    whole = picture.expand(len(maps), *picture.shape)
    return F.grid_sample(whole, grid, mode="bilinear", padding_mode="border", align_corners=False)
