"""The teacher's side: crops against PIL, vectors against a plain loop, and a store that is gone on with."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pictura.data.region_store import RegionStore
from pictura.data.scenes import ScenesConfig
from pictura.data.source import BadSample, Example
from pictura.evaluation.crops import TIMES, _by_roi_align, crops, embedded, widened
from pictura.evaluation.embed import Embedder
from pictura.evaluation.teach import fingerprint, teach
from pictura.models.clip import CLIP, CLIPConfig
from pictura.models.text import TextTransformerConfig
from tests.models.test_vild import SMALL, pictures, small

BOXES = torch.tensor([[3.0, 5, 40, 60], [0, 0, 64, 64], [10, 10, 20, 14], [50, 50, 63.5, 63.5]])


def clip() -> CLIP:
    torch.manual_seed(0)
    text = TextTransformerConfig(width=16, heads=2, depth=1, vocab_size=50, context_length=8)
    config = CLIPConfig(image=type(SMALL)(**{**vars(SMALL), "image_size": 32}), text=text, embed_dim=12)
    return config.build().eval()


def smooth(size: int) -> torch.Tensor:
    """A picture without detail, on which all good filters agree."""
    y, x = np.mgrid[:size, :size] / size
    pixels = np.stack([200 * x, 200 * y, 100 * (x + y)], 2).astype(np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)


@pytest.mark.parametrize("side", [16, 64])
def test_crops_are_those_of_pil(side: int) -> None:
    image = smooth(64)
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    for crop, box in zip(crops(image, BOXES, side), BOXES.tolist(), strict=True):
        wanted = picture.resize((side, side), Image.Resampling.BILINEAR, box=tuple(box))
        off = np.abs(crop.permute(1, 2, 0).numpy().astype(int) - np.asarray(wanted))
        assert off.max() <= 4 and off.mean() < 1


@pytest.mark.parametrize("side", [16, 64])
def test_a_gpu_cuts_the_same(side: int) -> None:
    image = smooth(64)
    whole = torch.cat([BOXES[:, :2].floor(), BOXES[:, 2:].ceil()], 1).clamp(0, 64)
    off = (crops(image, BOXES, side).int() - _by_roi_align(image, whole, side).int()).abs()
    assert off.max() <= 4 and off.float().mean() < 1


def test_a_region_without_area_at_the_edge_is_a_pixel() -> None:
    found = crops(smooth(64), torch.tensor([[64.0, 64.0, 64.0, 64.0], [-5.0, 3.0, -1.0, 3.0]]), 8)
    assert found.shape == (2, 3, 8, 8) and (found[0] == smooth(64)[:, 63:, 63:]).all()
    assert len(crops(smooth(64), torch.empty(0, 4), 8)) == 0


def test_a_smaller_crop_is_a_mean_and_no_choice_of_pixels() -> None:
    """Stripes of one pixel become grey."""
    stripes = torch.zeros(3, 64, 64, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    small_one = crops(stripes, torch.tensor([[0.0, 0, 64, 64]]), 8)[0]
    assert (small_one.float() - 127.5).abs().max() < 40


def test_wider_boxes_keep_their_centre() -> None:
    wide = widened(BOXES, 1.5)
    assert torch.allclose((wide[:, :2] + wide[:, 2:]) / 2, (BOXES[:, :2] + BOXES[:, 2:]) / 2)
    assert torch.allclose(wide[:, 2:] - wide[:, :2], 1.5 * (BOXES[:, 2:] - BOXES[:, :2]))


@pytest.mark.parametrize("batch_size", [3, 8, 100])
def test_vectors_are_those_of_a_plain_loop(batch_size: int) -> None:
    model, (one, two) = clip(), pictures((64, 64), (50, 90))
    given = [(one, BOXES), (two, BOXES[:0]), (two, BOXES[:3]), (one, BOXES[:1])]
    found = list(embedded(Embedder(model, None, batch_size=batch_size), given))
    assert [len(rows) for rows in found] == [4, 0, 3, 1]
    for rows, (image, boxes) in zip(found, given, strict=True):
        for row, box in zip(rows, boxes, strict=True):
            vectors = []
            for times in TIMES:
                with torch.inference_mode():
                    vectors.append(F.normalize(model.encode_image(crops(image, widened(box[None], times), 32)), dim=1))
            assert (row - F.normalize(sum(vectors), dim=1)[0]).abs().max() < 1e-5


def test_a_store_is_filled_gone_on_with_and_the_same_whatever_the_batches(tmp_path: Path) -> None:
    source = ScenesConfig(count=5, image_size=64).build()
    model, detector = clip(), small()

    def taught(folder: str, batch_size: int) -> RegionStore:
        sides = (Embedder(one, None, batch_size=batch_size) for one in (model, detector))
        return teach(*sides, source, tmp_path / folder, regions=7)

    first = taught("a", 3)
    assert not len(first.missing) and all(0 < len(first[i].boxes) <= 7 for i in range(5))
    lengths = [np.linalg.norm(first[i].vectors.astype(float), axis=1) for i in range(5)]
    assert np.concatenate(lengths) == pytest.approx(1, abs=1e-2)
    with torch.inference_mode():
        wanted = detector.propose([torch.from_numpy(source[2]["image"]).permute(2, 0, 1)])[0]["boxes"][:7]
    assert first[2].boxes == pytest.approx(wanted.numpy(), abs=1e-3)
    first.arrays["counts"][3] = -1
    first.flush()
    again, other = taught("a", 100), taught("b", 100)
    for index in range(5):
        assert again[index].boxes == pytest.approx(other[index].boxes, abs=1e-3)
        assert again[index].vectors == pytest.approx(other[index].vectors, abs=5e-3)


def test_another_model_has_another_fingerprint(tmp_path: Path) -> None:
    model = clip()
    before = fingerprint(model)
    assert before == fingerprint(clip())
    with torch.no_grad():
        model.image_projection.weight[0, 0] *= 1.1
    assert fingerprint(model) != before
    assert fingerprint(clip().bfloat16()) == before, "the same one, as a GPU has it"
    source = ScenesConfig(count=2, image_size=64).build()
    teach(Embedder(clip(), None), Embedder(small(), None), source, tmp_path, regions=3)
    with pytest.raises(ValueError, match="another teacher"):
        teach(Embedder(model, None), Embedder(small(), None), source, tmp_path, regions=3)


def test_a_picture_that_cannot_be_read_has_no_regions_and_is_counted(tmp_path: Path) -> None:
    class Torn(type(ScenesConfig(count=3).build())):  # type: ignore[misc]
        def __getitem__(self, index: int) -> Example:
            if index == 1:
                raise BadSample("train-1", "torn")
            return super().__getitem__(index)  # type: ignore[no-any-return]

    proposer = Embedder(small(), None)
    store = teach(Embedder(clip(), None), proposer, Torn(ScenesConfig(count=3, image_size=64)), tmp_path, regions=3)
    assert [len(store[i].boxes) for i in range(3)] == [3, 0, 3]
    assert proposer.bad.rows() == [("train-1", "torn")]


def test_who_cannot_teach_or_propose_is_told(tmp_path: Path) -> None:
    source = ScenesConfig(count=2, image_size=64).build()
    good = Embedder(clip(), None), Embedder(small(), None)
    with pytest.raises(ValueError, match="not alone"):
        teach(good[1], good[1], source, tmp_path)
    with pytest.raises(ValueError, match="finds no things"):
        teach(good[0], good[0], source, tmp_path)
    with pytest.raises(ValueError, match="regions: 0"):
        teach(*good, source, tmp_path, regions=0)
