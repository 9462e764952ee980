"""The peers as their own authors run them. open_clip_torch: model, optimiser and precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from pictura.models.clip import CLIPConfig
    from pictura.models.vit import ViTConfig

AMP = "amp_bf16 (autocast over float32 weights, its default)"
README = 'as its README shows: torch.autocast("cuda"), so float32 on a CPU'
PURE = "pure_bf16 (weights and pictures bf16, inference_mode)"


def model(config: CLIPConfig) -> torch.nn.Module:
    """The class that `open_clip.create_model` builds, of the same shapes as ours."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    image, text = config.image, config.text
    vision_cfg = CLIPVisionCfg(
        layers=image.depth, width=image.width, head_width=image.width // image.heads, mlp_ratio=image.mlp_ratio,
        patch_size=image.patch_size, image_size=image.image_size, no_ln_pre=not image.pre_norm,
        pool_type="tok" if image.pool == "class" else "avg",
    )  # fmt: skip
    text_cfg = CLIPTextCfg(
        context_length=text.context_length, vocab_size=text.vocab_size, width=text.width, heads=text.heads,
        layers=text.depth, mlp_ratio=text.mlp_ratio,
    )  # fmt: skip
    quick = image.activation == "quick_gelu"
    clip = CLIP(config.embed_dim, vision_cfg, text_cfg, quick_gelu=quick, output_dict=True)
    if image.stem.kind != "patch":  # the demo's convolutions, which open_clip has no configuration for
        clip.visual.conv1 = stem(image)
    return clip


def stem(image: ViTConfig) -> torch.nn.Module:
    """Our stem in the place of open_clip's patch convolution: [b 3 y x] -> [b d gy gx]."""
    from torch import nn

    grid = image.image_size // image.patch_size

    class Grid(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.transpose(1, 2).unflatten(2, (grid, grid))

    return nn.Sequential(image.stem.build(image.patch_size, image.width), Grid())


def holds(config: CLIPConfig) -> bool:
    """Whether open_clip's class can hold our weights: CLIP's published form, with a class token and `pre_norm`."""
    from pictura.layers.stems import PatchStemConfig

    image = config.image
    return image.pool == "class" and image.pre_norm and image.stem == PatchStemConfig(bias=False)


def optimizer(of: torch.nn.Module, *, fused: bool) -> torch.optim.Optimizer:
    """open_clip_train/main.py's groups and defaults. It does not ask torch to fuse; fused is about 3 times faster."""
    import torch

    named = list(of.named_parameters())
    exclude = {n for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n}
    groups = [
        {"params": [p for n, p in named if n in exclude], "weight_decay": 0.0},
        {"params": [p for n, p in named if n not in exclude], "weight_decay": 0.2},
    ]
    return torch.optim.AdamW(groups, lr=5e-4, betas=(0.9, 0.98), eps=1e-6, fused=fused)
