"""ResNet (He et al., Deep Residual Learning for Image Recognition, 2016; sizes: table 1) as torchvision has it.

Wide: Zagoruyko and Komodakis 2016. ResNeXt: Xie et al. 2017. A bottleneck halves the map in its 3x3 convolution, not in
its first. Names of parameters are torchvision's, which are those of timm's `ResNet` too.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pictura.layers.convolution import quick_
from pictura.models.base import ImageTower, ImageTowerConfig, check_positive

LAYERS = {"18": (2, 2, 2, 2), "34": (3, 4, 6, 3), "50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}
STRIDES = {"imagenet": 32, "cifar": 8}


def published(depth: str, block: str = "bottleneck", **three_by_three: int) -> dict[str, Any]:
    """One of the papers' sizes, as configuration."""
    return {"block": block, "layers": LAYERS[depth], **three_by_three}


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(ImageTowerConfig):
    """A ResNet. `layers`: blocks of each of the four stages; `groups` and `width_per_group` are of a bottleneck's 3x3.
    `width`: channels of the stem, and with it of all else: 128 is SimCLR's 2x (section 4.2), 16 suits small machines.

    stem: `imagenet` is 7x7 of stride 2 with max-pooling, `cifar` 3x3 of stride 1 without (SimCLR, appendix B.9), for
    pictures of 32 pixels or so. zero_init: the last gain of each residual branch begins at zero (Goyal et al. 2017,
    section 5.1).
    """

    kind: ClassVar[str] = "resnet"
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "18": published("18", block="basic"),
        "34": published("34", block="basic"),
        "50": published("50"),
        "101": published("101"),
        "152": published("152"),
        "50-2": published("50", width_per_group=128),
        "101-2": published("101", width_per_group=128),
        "50-32x4d": published("50", groups=32, width_per_group=4),
        "101-32x8d": published("101", groups=32, width_per_group=8),
        "101-64x4d": published("101", groups=64, width_per_group=4),
    }

    block: Literal["basic", "bottleneck"] = "bottleneck"
    layers: tuple[int, ...] = LAYERS["50"]
    width: int = 64
    groups: int = 1
    width_per_group: int = 64
    stem: Literal["imagenet", "cifar"] = "imagenet"
    zero_init: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.layers) != 4 or min(self.layers) < 1:
            raise ValueError(f"layers: {list(self.layers)} must be 4 numbers above zero, such as {list(LAYERS['50'])}")
        check_positive(width=self.width, groups=self.groups, width_per_group=self.width_per_group)
        if self.block == "basic" and (self.groups, self.width_per_group) != (1, 64):
            raise ValueError(
                f"block: basic has groups 1 and width_per_group 64, not {self.groups} and "
                f"{self.width_per_group}; take bottleneck"
            )
        if self.image_size < STRIDES[self.stem]:
            raise ValueError(f"image_size: {too_small(self.stem, self.image_size, self.image_size)}")

    @property
    def features(self) -> int:
        return self.channels[-1]

    @property
    def channels(self) -> list[int]:
        """Of the map of each stage."""
        return [self.width * times * (1 if self.block == "basic" else 4) for times in (1, 2, 4, 8)]

    def build(self) -> "ResNet":
        """The module, with fresh weights."""
        return ResNet(self)


def too_small(stem: str, height: int, width: int) -> str:
    """What to tell somebody whose picture has nothing left when the last stage has halved it."""
    hint = ", or stem cifar" if stem == "imagenet" and min(height, width) >= STRIDES["cifar"] else ""
    least = STRIDES[stem]
    return f"{height} x {width} pixels are too few for stem {stem}: it needs {least} x {least} at least{hint}"


class ResNet(ImageTower):
    """image: [b 3 y x], normalised, of any size from the stride on -> [b f], the average over the last stage's map.

    torchvision initialises: He's normal weights by fan out (He et al. 2015), gains 1, biases 0. So does the cifar stem.
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        from torchvision.models import resnet  # a second to import, which only runs with a ResNet have to wait for

        c = self.config = config

        class Net(resnet.ResNet):  # type: ignore[misc]  # its width is written into its code: 64 channels after the stem
            def _make_layer(self, block: Any, planes: int, *args: Any, **options: Any) -> nn.Sequential:
                if planes == 64:
                    self.inplanes = c.width
                return super()._make_layer(block, planes * c.width // 64, *args, **options)  # type: ignore[no-any-return]

        net = Net(
            resnet.BasicBlock if c.block == "basic" else resnet.Bottleneck,
            list(c.layers),
            num_classes=1,
            groups=c.groups,
            width_per_group=c.width_per_group,
            zero_init_residual=c.zero_init,
        )
        self.conv1: nn.Module = net.conv1
        self.bn1: nn.Module = net.bn1
        self.maxpool: nn.Module = net.maxpool
        if c.stem == "cifar" or c.width != 64:
            shape = (
                {"kernel_size": 3, "padding": 1} if c.stem == "cifar" else {"kernel_size": 7, "stride": 2, "padding": 3}
            )
            conv = nn.Conv2d(3, c.width, bias=False, **shape)  # type: ignore[arg-type]
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            self.conv1, self.bn1 = conv, nn.BatchNorm2d(c.width)
        if c.stem == "cifar":
            self.maxpool = nn.Identity()
        self.relu: nn.Module = net.relu
        self.layer1: nn.Module = net.layer1
        self.layer2: nn.Module = net.layer2
        self.layer3: nn.Module = net.layer3
        self.layer4: nn.Module = net.layer4
        quick_(self)

    @property
    def stages(self) -> list[nn.Module]:
        return [self.layer1, self.layer2, self.layer3, self.layer4]

    def forward(self, image: Tensor) -> Tensor:
        return self.maps(image)[-1].mean((2, 3))

    def maps(self, image: Tensor) -> list[Tensor]:
        """image: [b 3 y x], normalised -> what each stage gives, [b c y x], each half as wide and high as the one
        before."""
        height, width = image.shape[2:]
        if min(height, width) < STRIDES[self.config.stem]:
            raise ValueError(f"picture of {too_small(self.config.stem, height, width)}")
        image = image.contiguous(memory_format=torch.channels_last)  # bf16 convolutions are 2 to 3 times faster so
        x: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        found: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found
