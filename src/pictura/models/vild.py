"""ViLD (Gu et al., Open-vocabulary Object Detection via Vision and Language Knowledge Distillation, 2022).

A Mask R-CNN whose boxes and masks know of no classes, and whose regions are vectors in the space of a CLIP (section
3.3): a region is named by the texts that it is near, whichever these are. With `ensemble` a second head learns from the
CLIP's picture tower alone (section 3.4). Without a text tower the classes are learnt vectors: a plain detector.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
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
from pictura.models.vild_parts import HeadConfig, MaskHead, Proposer, Pyramid, RegionHead, SimplePyramid, reset
from pictura.models.vit import ViTConfig

PIXELS = 8 * 800 * 1333  # looked at at a time, where nothing is learnt
By = Literal["words", "picture", "ensemble"]
Detections = dict[str, Tensor]
Teacher = Callable[[Tensor, list[Tensor]], Tensor]  # pictures [b 3 y x] and regions in them, b of [n 4] -> [n e]


@dataclass(frozen=True, kw_only=True)
class ViLDConfig(PictureModelConfig):
    """`image` is the backbone, a resnet or a vit. `text`, the CLIP's, is given by `initial`, and never trained; without
    it `class_names` are all that can be found. templates: the sentences that a class's name is put in, for a text each,
    or the name of a set of them, such as `scene`.

    longest: the longer side of a picture is brought to so many pixels to be looked at; None is image_size. width: of
    the maps. anchors: side of a level's anchors, in pixels of its map. proposals: how many regions of a picture are
    looked at. detections: how many are told, at most; of all (region, class) pairs the best ten times as many are
    compared. nms: overlap from which two boxes of a class are one. share: of a class's probability, how much the
    better-suited of the ensemble's heads has.
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
        if isinstance(self.tower, ViTConfig) and (self.tower.patch_dropout or self.tower.patch_size % 4):
            raise ValueError("image: a detector's vit has patch_dropout 0 and a patch_size that 4 divides")
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


class Asked(NamedTuple):
    """What `ViLD.detect` is asked."""

    classes: Tensor
    trained: Tensor
    by: By
    teacher: Teacher | None
    objectness: bool
    attributes: Tensor | None


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
        self.logit_scale = nn.Parameter(torch.empty(()), requires_grad=False)
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
        return self.once(image, "maps", lambda: self._see(image))

    def _see(self, image: Tensor) -> Seen:
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
        self,
        image: Tensor | Sequence[Tensor],
        classes: Tensor | None = None,
        trained: Tensor | None = None,
        by: By | None = None,
        whole: Sequence[tuple[int, int]] | None = None,
        threshold: float = 0.0,
        teacher: Teacher | None = None,
        objectness: bool = False,
        attributes: Tensor | None = None,
    ) -> list[Detections]:
        """Pictures, each of any size, uint8 or normalised -> of each a dict of `boxes` [n 4], x0 y0 x1 y1 in its
        pixels, `scores` [n], the best first, `labels` [n], and `masks` [n y x] bool where the model has them.

        classes: [k e], by default those of `class_names`; trained: [k], which of them had boxes in training. whole:
        (y, x) of the pictures that these were resized from, in whose pixels the answer is then. threshold: the least
        score. Pictures of one size are looked at together, a few at a time; nothing of the others has an influence.
        teacher: a CLIP that looks at every region, in place of the ensemble's second head, which takes long (section
        3.2). objectness: scores are geometric means with how likely a region is to be a thing at all.

        attributes: [q e]; every class is looked for with each of them, and a label is class * q + attribute. Both are
        taken as independent: the class's probability times the attribute's, a softmax over the q of them (systematic
        expansion), as the words' head has it, or the picture head where that alone is asked.
        """
        by = by or ("words" if self.taught is None and teacher is None else "ensemble")
        if by != "words" and self.taught is None and teacher is None:
            raise ValueError(f"by: {by}: this detector has one head, not an ensemble; try words")
        device = self.background.device
        classes = (self.classes if classes is None else classes).to(device)
        trained = torch.ones(len(classes), dtype=torch.bool) if trained is None else trained
        attributes = None if attributes is None else attributes.to(device)
        asked = Asked(classes, trained.to(device), by, teacher, objectness, attributes)
        found = self._by_size(image, lambda pictures: self._detect(pictures, asked))
        for i, one in enumerate(found):
            seen = (image[i].shape[-2], image[i].shape[-1])
            kept = int((one["scores"] >= threshold).sum())  # the best come first
            found[i] = self._finish({k: v[:kept] for k, v in one.items()}, seen, seen if whole is None else whole[i])
        return found

    def propose(
        self, image: Tensor | Sequence[Tensor], whole: Sequence[tuple[int, int]] | None = None
    ) -> list[Detections]:
        """Pictures as in `detect` -> where there may be a thing, of any class: `boxes` [n 4] and `scores` [n], the best
        first, `proposals` at most."""

        def proposed(pictures: Tensor) -> list[Detections]:
            seen, sizes = self._see(pictures), [(pictures.shape[2], pictures.shape[3])] * len(pictures)
            found = self.proposer.propose(seen.maps, seen.found, sizes)
            return [{"boxes": boxes, "scores": scores} for boxes, scores in found]

        found = self._by_size(image, proposed)
        for i, one in enumerate(found):
            seen = (image[i].shape[-2], image[i].shape[-1])
            found[i] = self._finish(one, seen, seen if whole is None else whole[i])
        return found

    def _by_size(
        self, image: Tensor | Sequence[Tensor], find: Callable[[Tensor], list[Detections]]
    ) -> list[Detections]:
        """What `find` gives of pictures of one size, [b 3 y x], for pictures of any."""
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, one in enumerate(image):
            groups[tuple(one.shape[-2:])].append(i)
        out: list[Detections] = [{}] * len(image)
        for size, members in groups.items():
            some = max(1, PIXELS // (size[0] * size[1]))
            for begin in range(0, len(members), some):
                part = members[begin : begin + some]
                pictures = torch.stack([image[i] for i in part]).to(self.background.device)
                for i, one in zip(part, find(pictures), strict=True):
                    out[i] = one
        return out

    def _detect(self, image: Tensor, asked: "Asked") -> list[Detections]:
        from torchvision.ops import batched_nms, clip_boxes_to_image

        seen, size = self._see(image), (image.shape[2], image.shape[3])
        proposed, likely = zip(*self.proposer.propose(seen.maps, seen.found, [size] * len(image)), strict=True)
        counts = [len(boxes) for boxes in proposed]
        pooled = self.pool(seen, list(proposed))
        features, taught = self.regions(pooled), None
        if asked.by != "words" and asked.teacher is not None:
            taught = asked.teacher(image, list(proposed)).to(image.device)
        elif asked.by != "words" and self.taught is not None:
            taught = self.taught.project(self.taught(pooled))
        vectors = self.regions.project(features)
        scores = self.name(vectors, asked.classes, asked.trained, asked.by, taught)
        if asked.attributes is not None:
            head = taught if taught is not None and asked.by == "picture" else vectors
            chances = named(head, asked.attributes, self.background, self.logit_scale.exp())[:, 1:].softmax(1)
            scores = (scores[:, :, None] * chances[:, None]).flatten(1)
        if asked.objectness:
            scores = (scores * torch.cat(likely)[:, None]).sqrt()
        boxes = self.coder.decode(self.boxes(features).float(), list(proposed)).view(-1, 4)
        found = []
        for own, chance in zip(boxes.split(counts), scores.split(counts), strict=True):
            own = clip_boxes_to_image(own, size)
            best, place = chance.flatten().topk(min(10 * self.config.detections, chance.numel()))
            region, label = place // chance.shape[1], place % chance.shape[1]
            kept = ((own[:, 2:] - own[:, :2]) > 0.01).all(1)[region]
            best, region, label = best[kept], region[kept], label[kept]
            told = batched_nms(own[region], best, label, self.config.nms)[: self.config.detections]
            found.append({"boxes": own[region[told]], "scores": best[told], "labels": label[told]})
        if self.masks is not None:
            drawn = self.masks(self.pool(seen, [one["boxes"] for one in found], 14)).float().sigmoid()
            for one, own in zip(found, drawn.split([len(one["boxes"]) for one in found]), strict=True):
                one["masks"] = own
        return found

    def _finish(self, one: Detections, seen: tuple[int, int], whole: tuple[int, int]) -> Detections:
        """Boxes from pixels of what was seen to those of the whole picture, and masks [n 28 28] into it."""
        from torchvision.models.detection.roi_heads import paste_masks_in_image

        boxes = one["boxes"]
        if seen != whole:
            boxes = boxes * boxes.new_tensor([whole[1] / seen[1], whole[0] / seen[0]] * 2)
        if "masks" not in one:
            return one | {"boxes": boxes}
        masks = torch.empty(len(boxes), *whole, dtype=torch.bool, device=boxes.device)
        for row, small, box in zip(masks, one["masks"], boxes, strict=True):  # one by one: they are float32 at first
            row[:] = paste_masks_in_image(small[None, None], box[None], whole)[0, 0] >= 0.5
        return one | {"boxes": boxes, "masks": masks}
