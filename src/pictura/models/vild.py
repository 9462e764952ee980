"""ViLD (Gu et al., Open-vocabulary Object Detection via Vision and Language Knowledge Distillation, 2022).

A Mask R-CNN whose boxes and masks know of no classes, and whose regions are vectors in the space of a CLIP (section
3.3): a region is named by the texts that it is near, whichever these are. With `ensemble` a second head learns from the
CLIP's picture tower alone (section 3.4). Without a text tower the classes are learnt vectors: a plain detector.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.layers.once import Once
from pictura.losses.regions import named
from pictura.models.base import ImageTowerConfig, TextTowerConfig, check_positive
from pictura.models.pictures import PictureModelConfig, read_pictures
from pictura.models.resnet import ResNetConfig
from pictura.models.vild_finding import By, Detections, Pictures, Query, find, finished, propose
from pictura.models.vild_parts import HeadConfig, MaskHead, Proposer, Pyramid, RegionHead, SimplePyramid, reset
from pictura.models.vit import ViTConfig

PATCHES = (4, 8, 16, 32, 64)  # pixels across; torchvision's RoIAlign takes strides of powers of two


@dataclass(frozen=True, kw_only=True)
class ViLDConfig(PictureModelConfig):
    """`image` is the backbone, a resnet or a vit. `text`, the CLIP's, is given by `initial`, and never trained; without
    it `class_names` are all that can be found. templates: the sentences that a class's name is put in, for a text each,
    or the name of a set of them, such as `scene`.

    longest: a picture is looked at with its shorter side of image_size pixels, or less where its longer one would pass
    `longest`; None is image_size, so that is the longer side's. width: of the maps. anchors: side of a level's anchors,
    in pixels of its map. proposals: how many regions of a picture are looked at. detections: how many are told at most;
    of all (region, class) pairs the best ten times as many are compared. nms: overlap from which two boxes of a class
    are one. share: of a class's probability, how much the better-suited of the ensemble's heads has. logit_scale: the
    logarithm of the temperature's inverse, that of `initial` where there is one; learn_scale: it is trained.
    """

    kind: ClassVar[str] = "vild"
    tower_kind = (ResNetConfig, ViTConfig)
    resizes: ClassVar[tuple[str, ...]] = ("fit",)

    image: ImageTowerConfig | None = field(default_factory=ResNetConfig)
    resize: Literal["shortest", "squash", "fit"] = "fit"
    longest: int | None = None
    text: TextTowerConfig | None = None
    embed_dim: int = 512
    width: int = 256
    head: HeadConfig = field(default_factory=HeadConfig)
    ensemble: bool = False
    masks: bool = False
    anchors: float = 8.0
    rpn_convs: int = 2
    proposals: int = 1000
    detections: int = 300
    nms: float = 0.5
    share: float = 2 / 3
    logit_scale: float = math.log(100)
    learn_scale: bool = False
    class_names: tuple[str, ...] = ()
    templates: str | tuple[str, ...] = ("{}",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(
            embed_dim=self.embed_dim, width=self.width, anchors=self.anchors, rpn_convs=self.rpn_convs,
            proposals=self.proposals, detections=self.detections,
        )  # fmt: skip
        for key in ("nms", "share"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"{key}: {getattr(self, key)} is not from 0 to 1")
        given = self.templates  # a set's name is looked up where texts are made
        if not isinstance(given, str) and not (given and all("{}" in one for one in given)):
            raise ValueError(f"templates: {list(given)}: sentences with {{}} where the name goes; try ['{{}}']")
        if len(set(self.class_names)) != len(self.class_names):
            twice = next(name for name in self.class_names if self.class_names.count(name) > 1)
            raise ValueError(f"class_names: {twice!r} is there twice")

    @property
    def limit(self) -> int:
        """`longest`, in pixels where that is None too."""
        return self.longest or self.tower.image_size

    @property
    def backbone(self) -> ResNetConfig | ViTConfig:
        """`image`. ValueError where no pyramid of maps can be made of it."""
        if not isinstance(self.tower, ResNetConfig | ViTConfig):
            raise ValueError(f"image.kind: {self.tower.kind}: a detector's is a resnet or a vit")  # type: ignore[attr-defined]
        if isinstance(self.tower, ViTConfig) and (self.tower.patch_dropout or self.tower.patch_size not in PATCHES):
            raise ValueError(
                f"image: a detector's vit has patch_dropout 0 and a patch_size of {', '.join(map(str, PATCHES))}"
            )
        return self.tower

    @property
    def stride(self) -> int:
        """Pixels between the cells of the finest map."""
        if isinstance(self.backbone, ViTConfig):
            return self.backbone.patch_size // 4
        return 4 if self.backbone.stem == "imagenet" else 1

    def build(self) -> "ViLD":
        """The module, with fresh weights."""
        return ViLD(self)


class Seen(NamedTuple):
    """Pictures of one size, looked at. maps: [b c y x] float32 of each level, as RoIAlign wants them; found: what
    `Proposer` gives."""

    maps: list[Tensor]
    found: tuple[Tensor, Tensor, Tensor]
    size: tuple[int, int]


class ViLD(Once):
    """`detect(pictures, classes: [k e])` -> what there is and where, in pixels."""

    def __init__(self, config: ViLDConfig) -> None:
        super().__init__()
        from torchvision.models.detection._utils import BoxCoder
        from torchvision.ops import MultiScaleRoIAlign

        c = self.config = config
        self.image = c.backbone.build()
        self.pyramid: Pyramid | SimplePyramid
        if isinstance(c.backbone, ViTConfig):
            self.pyramid = SimplePyramid(c.backbone.width, c.width)
        else:
            self.pyramid = Pyramid(c.backbone.channels, c.width)
        levels = self.pyramid.levels
        sizes = [max(1, round(c.anchors * c.stride * 2**level)) for level in range(levels + 1)]
        self.proposer = Proposer(c.width, sizes, c.rpn_convs, c.proposals)
        self.regions = RegionHead(c.width, c.head, c.embed_dim)
        self.boxes = nn.Linear(c.head.width, 4)
        self.taught = RegionHead(c.width, c.head, c.embed_dim) if c.ensemble else None
        self.masks = MaskHead(c.width) if c.masks else None
        self.background = nn.Parameter(torch.empty(c.embed_dim))
        learnt = c.text is None
        self.classes = nn.Parameter(torch.empty(len(c.class_names), c.embed_dim), requires_grad=learnt)
        self.logit_scale = nn.Parameter(torch.empty(()), requires_grad=c.learn_scale)
        self.text, self.text_projection = None, None
        if c.text is not None:
            self.text = c.text.build().requires_grad_(False)
            self.text_projection = nn.Linear(c.text.width, c.embed_dim, bias=False).requires_grad_(False)
        self.coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
        names = [str(level) for level in range(levels)]
        self.align = {side: MultiScaleRoIAlign(names, side, 2) for side in (7, 14)}
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Released code: boxes begin at their proposals, the background as a short random vector. The towers and
        torchvision's parts reset themselves when they are built."""
        for head in (self.regions, self.taught, self.masks):
            if head is not None:
                reset(head)
        nn.init.normal_(self.boxes.weight, std=0.001)
        nn.init.zeros_(self.boxes.bias)
        nn.init.normal_(self.background, std=0.01)
        nn.init.normal_(self.classes, std=0.01)
        nn.init.constant_(self.logit_scale, self.config.logit_scale)
        if self.text_projection is not None:
            nn.init.normal_(self.text_projection.weight, std=self.text_projection.in_features**-0.5)

    def encode_text(self, text: Tensor) -> Tensor:
        """text: [b t] token ids, zero after each end token -> [b e]. ValueError for a detector without a text tower."""
        if self.text is None or self.text_projection is None:
            raise ValueError("this detector has no text tower; it finds its own class_names only")
        out: Tensor = self.text_projection(self.text(text))
        return out

    def see(self, image: Tensor) -> Seen:
        """image: [b 3 y x], uint8 RGB as decoded, or floating and normalised already -> their maps, for all who ask for
        those of the same pictures in one step."""
        return self.once(image, "maps", lambda: self.look(image))

    def look(self, image: Tensor) -> Seen:
        """As `see`, for one who asks alone."""
        pixels = read_pictures(image, self.config, self.background.dtype)
        whole = 2 ** (self.pyramid.levels - 1) * self.config.stride
        down, across = (-side % whole for side in pixels.shape[2:])
        pixels = F.pad(pixels, (0, across, 0, down))
        size = (pixels.shape[2], pixels.shape[3])
        maps = self.pyramid(self.image.maps(pixels))
        return Seen([one.float() for one in maps], self.proposer(maps, size), size)

    def pool(self, seen: Seen, boxes: list[Tensor], side: int = 7) -> Tensor:
        """boxes: b of [n 4] -> [n c side side], of the level that suits each box's size."""
        maps = {str(i): one for i, one in enumerate(seen.maps[:-1])}
        out: Tensor = self.align[side](maps, boxes, [seen.size] * len(boxes))
        return out.to(self.background.dtype)

    def name(self, regions: Tensor, classes: Tensor, trained: Tensor, by: By, taught: Tensor | None) -> Tensor:
        """regions, taught: [n e] of the two heads, classes: [k e] -> [n k] probabilities.

        By `words`: over classes and background (section 3.3); by the `picture` head: over the classes alone; by the
        `ensemble`: their geometric mean, in which the words weigh `share` where the class was `trained`, [k], and
        1 - share elsewhere (section 3.4, equation 6).
        """
        scale, shown = self.logit_scale.exp(), None
        if by != "words":
            assert taught is not None
            shown = named(taught, classes, self.background, scale)[:, 1:].softmax(1)
            if by == "picture":
                return shown
        said = named(regions, classes, self.background, scale).softmax(1)[:, 1:]
        if shown is None:
            return said
        share = torch.where(trained, self.config.share, 1 - self.config.share)
        return said**share * shown ** (1 - share)

    def detect(
        self, image: Pictures, query: Query | None = None, whole: Sequence[tuple[int, int]] | None = None
    ) -> list[Detections]:
        """Pictures, each of any size, uint8 or normalised -> of each a dict of `boxes` [n 4], x0 y0 x1 y1 in its
        pixels, `scores` [n], the best first, `labels` [n], and `masks` [n y x] bool where the model has them. whole:
        (y, x) of the pictures that these were resized from, in whose pixels the answer is then."""
        return [*self.detections(image, query, whole)]

    def detections(
        self, image: Pictures, query: Query | None = None, whole: Sequence[tuple[int, int]] | None = None
    ) -> Iterator[Detections]:
        """As `detect`, one picture's after the other."""
        return finished(find(self, image, query or Query()), image, whole)

    def propose(self, image: Pictures, whole: Sequence[tuple[int, int]] | None = None) -> list[Detections]:
        """Pictures as in `detect` -> where there may be a thing, of any class: `boxes` [n 4] and `scores` [n], the best
        first, `proposals` at most."""
        return [*finished(propose(self, image), image, whole)]
