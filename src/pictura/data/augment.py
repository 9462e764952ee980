"""RandAugment (Cubuk et al., 2020): a few of fourteen distortions, all of one strength, chosen for each picture."""

import numpy as np
import torch
from PIL import Image

STRONGEST = 10.0  # the paper's scale
BINS = 31  # torchvision's


def rand_augment(image: Image.Image, ops: int, magnitude: float, rng: np.random.Generator) -> Image.Image:
    """`ops` distortions of strength `magnitude`, from 0 to 10 as in the paper's code, by torchvision.

    torchvision's list has no inversion of colours and no cutout, unlike some others; ViLT leaves them out on purpose,
    since a caption may name the colour, or what is cut out. Nothing is stronger than 10: where papers say 15, take 10.
    """
    from torchvision.transforms import v2  # half a second to import, for runs that distort only

    change = v2.RandAugment(num_ops=ops, magnitude=round(magnitude / STRONGEST * (BINS - 1)), num_magnitude_bins=BINS)
    with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's global state
        torch.manual_seed(int(rng.integers(2**63)))
        out: Image.Image = change(image)
    return out
