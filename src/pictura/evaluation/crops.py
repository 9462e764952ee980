"""What a CLIP says of regions: each is cut out, resized and embedded, many at once (ViLD, Gu et al. 2022, section 3.2).

Crops of 1 and of 1.5 times the region's sides, the same centre, are embedded; the mean of their unit vectors is the
region's. They are cut off at the picture's edge.
"""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.evaluation.embed import Embedder, evaluating

TIMES = (1.0, 1.5)
SAMPLES = 8  # across, at most, of which RoIAlign makes a pixel


def widened(boxes: Tensor, times: float) -> Tensor:
    """boxes: [m 4] -> [m 4], the same centres, sides `times` as long."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, times * (boxes[:, 2:] - boxes[:, :2]) / 2
    return torch.cat([middle - half, middle + half], 1)


def crops(image: Tensor, boxes: Tensor, side: int) -> Tensor:
    """image: [3 y x] uint8, boxes: [m 4] in its pixels -> [m 3 side side] uint8, each region, to the whole pixels that
    it touches, squeezed to a square: bilinear, with antialias."""
    y, x = image.shape[1:]
    limit = torch.tensor([x, y, x, y], device=boxes.device)
    boxes = torch.cat([boxes[:, :2].floor(), boxes[:, 2:].ceil()], 1).clamp(min=0).minimum(limit)
    boxes[:, :2] = boxes[:, :2].minimum(limit[:2] - 1)
    boxes[:, 2:] = boxes[:, 2:].maximum(boxes[:, :2] + 1)
    if image.device.type == "cpu":
        whole = image[None].contiguous(memory_format=torch.channels_last)
        parts = (whole[..., top:bottom, left:right] for left, top, right, bottom in boxes.int().tolist())
        nothing = torch.empty(0, 3, side, side, dtype=torch.uint8)
        return torch.cat([nothing, *(F.interpolate(p, (side, side), mode="bilinear", antialias=True) for p in parts)])
    return _by_roi_align(image, boxes.to(image.device).float(), side)


def _by_roi_align(image: Tensor, boxes: Tensor, side: int) -> Tensor:
    """As `crops`, where one call for many is faster than many: RoIAlign averages over the pixels that one of a crop
    stands for."""
    from torchvision.ops import roi_align

    pixels, across = image[None].float(), (boxes[:, 2:] - boxes[:, :2]).amax(1)
    out = torch.empty(len(boxes), 3, side, side, device=image.device)
    samples = (across / side).ceil().clamp(1, SAMPLES)
    for number in samples.unique().int().tolist():  # few: as many as the regions' sizes ask for
        some = (samples == number).nonzero().squeeze(1)
        out[some] = roi_align(pixels, [boxes[some]], side, 1.0, number, aligned=True)
    return out.round_().clamp_(0, 255).to(torch.uint8)


def embedded(teacher: Embedder, pictures: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
    """Pictures [3 y x] uint8 with their regions [m 4] -> of each [m e], unit vectors, float32, on the CPU, in order.

    The crops of several pictures make up a batch of the teacher's.
    """
    side, waiting, sizes = teacher.model.config.image.image_size, list[Tensor](), list[int]()
    done: list[Tensor] = []

    def told(last: bool) -> Iterator[Tensor]:
        nonlocal waiting, done
        nothing = torch.empty(0, 3, side, side, dtype=torch.uint8, device=teacher.device)
        ready = torch.cat([nothing, *waiting])
        size = teacher.batch_size
        whole = len(ready) if last else len(ready) // size * size
        for begin in range(0, whole, size):
            with evaluating(teacher.model), torch.inference_mode():
                vectors = teacher.model.encode_image(ready[begin : min(begin + size, whole)])
            done.append(F.normalize(vectors.float(), dim=-1).cpu())
        waiting = [ready[whole:]]
        rows = torch.cat(done) if done else torch.empty(0, teacher.model.config.embed_dim)
        while sizes and len(TIMES) * sizes[0] <= len(rows):
            m = len(TIMES) * sizes.pop(0)
            yield F.normalize(rows[:m].view(len(TIMES), m // len(TIMES), rows.shape[1]).sum(0), dim=-1)
            rows = rows[m:]
        done = [rows]

    for image, boxes in pictures:
        both = torch.cat([widened(boxes, times) for times in TIMES])
        waiting.append(crops(image.to(teacher.device), both, side))
        sizes.append(len(boxes))
        if sum(map(len, waiting)) >= teacher.batch_size:
            yield from told(last=False)
    yield from told(last=True)
