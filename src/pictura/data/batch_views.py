"""Views of a whole batch at once, on its device, each picture cut and coloured by numbers of its own.

SimCLR's augmentation (Chen et al. 2020, appendix A): a random crop, mirrored half of the time; a jitter of colours; no
colour at all; a blur. Each step is computed as torchvision computes it on one picture.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from pictura.config import Config
from pictura.data.colour import JITTER, ROOM, grey_, solarised
from pictura.data.randomness import uniforms
from pictura.data.resample import blur_matrix, resample, resized_crops

TRIES = 10  # to fit a random crop into the picture
USED = 2 * TRIES + 16  # random numbers for one view
IN_CACHE, IN_MEMORY = 2**16, 2**25  # pixels of views that are worked on together: on a CPU; on another device


@dataclass(frozen=True)
class Chances:
    """What is done to each of n pictures. All on the CPU, where it is cheap to look at."""

    box: Tensor  # [n 4] int64: left, top, width, height
    flip: Tensor  # [n] bool
    order: Tensor  # [n 4] int64: which of brightness, contrast, saturation, hue comes first, …
    factor: Tensor  # [n 4]: their strengths, in the order of those names
    jitter: Tensor  # [n] bool: whether there are any
    grey: Tensor  # [n] bool
    sigma: Tensor  # [n]: of the blur, in pixels; 0 for none
    solarise: Tensor  # [n] bool

    def of(self, which: Tensor | slice) -> "Chances":
        """Those of some views."""
        return Chances(*(getattr(self, field.name)[which] for field in fields(self)))


@dataclass(frozen=True, kw_only=True)
class BatchViewConfig(Config, ABC):
    """SimCLR's distribution of views; `size: cifar` is its variant for small pictures (appendix B.9).

    image_size: side of the square that comes out; None: as large as the pictures that come in. scale, ratio: of the
    random rectangle, as share of the area, and width over height. flip: probability to be mirrored. strength: of the
    jitter of colours (the paper's s; 1.0 is brightness, contrast and saturation by up to 0.8, hue by up to 0.2 circle),
    which happens with probability `jitter`; grey, blur, solarise: probabilities. sigma: of the blur, in pixels of the
    view, over a tenth of its side: views of less than 20 pixels have none.
    """

    sizes: ClassVar[dict[str, dict[str, Any]]] = {"imagenet": {}, "cifar": {"strength": 0.5, "blur": 0.0}}

    image_size: int | None = None
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (0.75, 4 / 3)
    flip: float = 0.5
    strength: float = 1.0
    jitter: float = 0.8
    grey: float = 0.2
    blur: float = 0.5
    sigma: tuple[float, float] = (0.1, 2.0)
    solarise: float = 0.0

    def __post_init__(self) -> None:
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"image_size: {self.image_size} is below 1")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale: {list(self.scale)} is not a range of shares of the picture; try [0.08, 1]")
        if not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            raise ValueError(f"ratio: {list(self.ratio)} is not a range of width over height; try [0.75, 1.333]")
        if not 0 <= self.strength <= 2.5:
            raise ValueError(f"strength: {self.strength} must be at least 0 and at most 2.5, half a circle of hues")
        if not 0 < self.sigma[0] <= self.sigma[1] < math.inf:
            raise ValueError(f"sigma: {list(self.sigma)} is not a range of pixels; try [0.1, 2]")
        for name in ("flip", "jitter", "grey", "blur", "solarise"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not a probability")

    @abstractmethod
    def build(self) -> "BatchView":
        """What makes the views."""

    def side(self, height: int, width: int) -> int:
        """Of the views of such pictures. ValueError where the pictures are smaller: views would be enlarged twice."""
        least = min(height, width)
        if self.image_size is not None and self.image_size > least:
            raise ValueError(
                f"image_size: views of {self.image_size} pixels are cut out of pictures of {least}; "
                f"pictures must have {self.image_size} at least"
            )
        return self.image_size or least

    def chances(self, draws: Tensor, height: int, width: int) -> Chances:
        """draws: [n USED], uniform from 0 to 1 -> what is done to n pictures of that size."""
        u = draws.double()
        tries, u = u[:, : 2 * TRIES].view(-1, TRIES, 2), u[:, 2 * TRIES :]
        low, high = 1 - 0.8 * self.strength, 1 + 0.8 * self.strength
        factor = max(0.0, low) + u[:, 6:10] * (high - max(0.0, low))
        factor[:, 3] = (2 * u[:, 9] - 1) * 0.2 * self.strength
        sigma = self.sigma[0] + u[:, 12] * (self.sigma[1] - self.sigma[0])
        return Chances(
            box=self._boxes(tries, u[:, :2], height, width),
            flip=u[:, 14] < self.flip,
            order=u[:, 2:6].argsort(1),
            factor=factor.float(),
            jitter=(u[:, 10] < self.jitter) & (self.strength > 0),
            grey=u[:, 11] < self.grey,
            sigma=torch.where(u[:, 13] < self.blur, sigma, 0.0).float(),
            solarise=u[:, 15] < self.solarise,
        )

    def _boxes(self, tries: Tensor, place: Tensor, height: int, width: int) -> Tensor:
        """The first of the tried rectangles that fits, as torchvision's `RandomResizedCrop`; else the largest in the
        middle with a permitted ratio."""
        (least, most), (low, high) = self.scale, self.ratio
        area = height * width * (least + tries[..., 0] * (most - least))
        ratio = low * (high / low) ** tries[..., 1]
        w, h = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
        fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
        first = fits.int().argmax(1, keepdim=True)
        some = fits.any(1)
        w = torch.where(some, w.gather(1, first)[:, 0], min(width, max(1, round(height * high))))
        h = torch.where(some, h.gather(1, first)[:, 0], min(height, max(1, round(width / low))))
        left = torch.where(some, (place[:, 0] * (width - w + 1)).long(), (width - w) // 2)
        top = torch.where(some, (place[:, 1] * (height - h + 1)).long(), (height - h) // 2)
        return torch.stack([left, top, w, h], 1)


class BatchView(ABC):
    """`view(image, seeds, views)`: image uint8 [b 3 y x], a seed of each -> [views*b 3 s s], floating, from 0 to 1: one
    view of each picture, then another of each, …. A seed gives the same views in whatever batch, on whatever process.
    """

    def __init__(self, config: BatchViewConfig) -> None:
        self.config = config

    @torch.no_grad()
    def __call__(self, image: Tensor, seeds: Sequence[int], views: int = 1) -> Tensor:
        draws = uniforms(seeds, views * USED).view(-1, views, USED).transpose(0, 1).reshape(-1, USED)
        return self.apply(image, self.config.chances(draws, *image.shape[2:]))

    @abstractmethod
    def apply(self, image: Tensor, chances: Chances) -> Tensor:
        """The views by these chances, n of them: view i is one of picture i modulo b."""


@dataclass(frozen=True, kw_only=True)
class SimCLRViewConfig(BatchViewConfig):
    """Step by step as torchvision would, in float32."""

    kind: ClassVar[str] = "simclr"

    def build(self) -> "SimCLRView":
        return SimCLRView(self)


class SimCLRView(BatchView):
    """Views whose colours change in the same order follow each other, as many at once as fit into the cache."""

    def apply(self, image: Tensor, chances: Chances) -> Tensor:
        side, device, n = self.config.side(*image.shape[2:]), image.device, len(chances.flip)
        key = (chances.order * torch.tensor([64, 16, 4, 1])).sum(1).masked_fill_(~chances.jitter, -1)
        at = key.argsort(stable=True)
        c = chances.of(at)
        at_once = max(1, (IN_CACHE if device.type == "cpu" else IN_MEMORY) // side**2)
        room = torch.empty(ROOM, min(at_once, n), side, side, device=device)
        out, factor, key = torch.empty(n, 3, side, side, device=device), c.factor.to(device), key[at]
        for some in map(slice, range(0, n, at_once), range(at_once, n + at_once, at_once)):
            x = resized_crops(image, at[some] % len(image), c.box[some], c.flip[some], side).mul(1 / 255)
            for alike in runs(key[some]):
                if c.jitter[some][alike.start]:
                    for what in c.order[some][alike.start].tolist():
                        JITTER[what](x[alike], factor[some][alike, what], room[:, : alike.stop - alike.start])
            out.index_copy_(0, at[some].to(device), x)
        radius = side // 10 // 2
        for few in parts(chances.grey, at_once):
            x = out.index_select(0, few.to(device))
            grey_(x, room[:, : len(few)])
            out.index_copy_(0, few.to(device), x)
        for few in parts((chances.sigma > 0) & (radius > 0), at_once):
            matrix = blur_matrix(chances.sigma[few].to(device), radius, side)
            out.index_copy_(0, few.to(device), resample(out.index_select(0, few.to(device)), matrix, matrix))
        for few in parts(chances.solarise, at_once):
            out.index_copy_(0, few.to(device), solarised(out.index_select(0, few.to(device))))
        return out


def parts(chosen: Tensor, at_once: int) -> Iterator[Tensor]:
    """chosen: [n bool] -> the places of those, up to so many at once."""
    return (few for few in chosen.nonzero()[:, 0].split(at_once) if len(few))


def runs(key: Tensor) -> list[slice]:
    """Where equal numbers follow each other."""
    cuts = [0, *(1 + key.diff().nonzero()[:, 0]).tolist(), len(key)]
    return list(map(slice, cuts, cuts[1:]))
