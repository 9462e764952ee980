"""Pictures to patch tokens (ViT, equation 1), and patch dropout (FLIP, Li et al. 2022, section 3)."""

import torch
from torch import Tensor, nn

from pictura.layers.linear import linear


def patchify(image: Tensor, patch: int) -> Tensor:
    """[b c y x] -> [b n c*patch*patch], patches in reading order, each flattened as a convolution's weight is."""
    b, c, height, width = image.shape
    if height % patch or width % patch:
        raise ValueError(f"picture of {height} x {width} pixels: both sides must be multiples of patch_size {patch}")
    y, x = height // patch, width // patch
    return image.view(b, c, y, patch, x, patch).permute(0, 2, 4, 1, 3, 5).reshape(b, y * x, c * patch * patch)


class PatchEmbed(nn.Module):
    """[b c y x] -> [b n d]. A convolution by its published weight, computed as one matrix product."""

    def __init__(self, patch_size: int, width: int, *, channels: int = 3, bias: bool = True) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch_size, patch_size, bias=bias)
        self.patch_size = patch_size

    def reset_parameters(self) -> None:
        """As a convolution is initialised (openai/CLIP, model.py)."""
        self.proj.reset_parameters()

    def forward(self, image: Tensor) -> Tensor:
        return linear(patchify(image, self.patch_size), self.proj.weight.flatten(1), self.proj.bias)


def drop_patches(x: Tensor, rate: float) -> Tensor:
    """[b n d] -> [b kept d]: each example keeps its own random round(n * (1 - rate)) patches, at least one."""
    b, n, _ = x.shape
    keep = max(1, round(n * (1 - rate)))
    index = torch.rand(b, n, device=x.device).topk(keep, dim=1).indices
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[2]))


class PatchDropout(nn.Module):
    """`drop_patches` in training, with a share of `patch_dropout`."""

    def __init__(self, patch_dropout: float) -> None:
        super().__init__()
        self.patch_dropout = patch_dropout

    def forward(self, x: Tensor) -> Tensor:
        return drop_patches(x, self.patch_dropout) if self.training and self.patch_dropout > 0 else x
