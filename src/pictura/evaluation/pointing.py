"""Where in a picture a ViLT finds each word: the plan of optimal transport between words and patches, drawn over it
(Kim et al. 2021, figure 4)."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from pictura.data.text import Tokenizer
from pictura.evaluation.embed import evaluating
from pictura.losses.transport import transport_plan

BETA, STEPS = 0.1, 1000  # sharper than in training, as for the paper's figures
TILE, CAPTION, ACROSS = 224, 18, 5  # pixels, pixels, tiles in a row


@torch.inference_mode()
def word_maps(model: Any, tokenizer: Tokenizer, image: Tensor, text: str) -> list[tuple[str, npt.NDArray[np.float32]]]:
    """image: [3 y x] uint8 or normalised -> each word of `text` with a map [rows columns] of its share of the patches,
    1 where it has most."""
    ids = tokenizer([text], model.config.text.context_length).to(model.type_embed.device)
    with evaluating(model):
        joint = model([image], ids)
    (rows, columns), patches = joint.grids[0], joint.tokens[-joint.grids[0][0] * joint.grids[0][1] :].float()
    numbers = tokenizer.word_numbers(ids)[0][joint.inside[0]]
    pieces = joint.words.float()[numbers > 0]
    cost = 1 - F.normalize(pieces, dim=1) @ F.normalize(patches, dim=1).T
    every = [torch.ones(1, length, dtype=torch.bool, device=cost.device) for length in cost.shape]
    plan = transport_plan(cost[None], *every, beta=BETA, steps=STEPS)[0]
    found = []
    for word in range(1, int(numbers.max()) + 1):
        share = plan[numbers[numbers > 0] == word].sum(0)
        spelled = tokenizer.decode(ids[0][: len(numbers)][numbers == word])
        found.append((spelled, (share / share.max().clamp(min=1e-9)).view(rows, columns).cpu().numpy()))
    return found


def drawn(picture: Image.Image, maps: list[tuple[str, npt.NDArray[np.float32]]]) -> Image.Image:
    """The picture once for each word, bright where the word is found, the word below."""
    picture = ImageOps.contain(picture.convert("RGB"), (TILE, TILE))
    width, height = max(picture.width, 64), picture.height + CAPTION
    lines = -(-len(maps) // ACROSS)
    sheet = Image.new("RGB", (width * min(ACROSS, len(maps)), height * lines), "white")
    pixels, write = np.asarray(picture, np.float32), ImageDraw.Draw(sheet)
    for place, (word, shares) in enumerate(maps):
        heat = Image.fromarray((255 * shares).astype(np.uint8)).resize(picture.size, Image.Resampling.BILINEAR)
        bright = 0.25 + 0.75 * np.asarray(heat, np.float32)[..., None] / 255
        left, top = place % ACROSS * width, place // ACROSS * height
        sheet.paste(Image.fromarray((pixels * bright).astype(np.uint8)), (left, top))
        write.text((left + 4, top + picture.height + 2), word, fill="black")
    return sheet
