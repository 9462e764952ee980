"""The three ways from pixels to answers: each gives scores, NMS is the greedy one, and the tables say what was kept."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from benchmarks import regions, ways
from benchmarks.regions import PARTS, WAYS, gflops, tables, turn
from benchmarks.ways import OVERLAP, Sizes, Way, answer, best, photos, question, settle, transformer

TINY = Sizes(width=128, depth=2, answers=7, classes=5, proposals=20, regions=4, large=(96, 160), small=(64, 107))
TEXT = question(2, "cpu")


@pytest.fixture(scope="module")
def built() -> dict[str, Way]:
    """The ways, small, in float32."""
    found = {kind: Way(kind, "float32", "cpu", TINY) for kind in WAYS if kind != "regions_once"}
    found["regions_once"] = once = copy(found["regions"])  # the same networks
    once.kind = "regions_once"
    return found


@pytest.mark.parametrize("kind", WAYS)
def test_a_way_scores_every_answer_and_tells_where_the_time_went(built: dict[str, Way], kind: str) -> None:
    way, pictures, lengths = built[kind], photos(2)[0], []
    handle = way.transformer.image.blocks[0].register_forward_hook(lambda _, given, __: lengths.append(len(given[0])))
    with torch.inference_mode():
        scores = way(pictures, TEXT)
    handle.remove()
    seen = {"regions": 4, "regions_once": 4, "grid": 1 * 2, "patches": 1 + 2 * 2}[kind]  # of 96 x 128, of 64 x 64
    assert lengths == [2 * (12 + seen)]
    assert scores.shape == (2, 7) and scores.dtype is torch.float32 and scores.isfinite().all()
    took = turn(way, pictures[:1], TEXT[:1], 0.0)
    detects = kind.startswith("regions")
    assert {part for part in PARTS if took[part] > 0} >= set(
        PARTS if detects else ("preparing pictures", "Transformer")
    )
    assert detects or took["NMS of proposals"] == took["NMS of regions"] == 0
    assert sum(took[part] for part in PARTS) <= took["whole"]


def test_pictures_of_a_batch_do_not_meet(built: dict[str, Way]) -> None:
    pictures = photos(2)[0]
    for kind in ("grid", "patches"):
        with torch.inference_mode():
            together = built[kind](pictures, TEXT)
            alone = [built[kind](pictures[i : i + 1], TEXT[i : i + 1]) for i in range(2)]
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_bf16_gives_nearly_what_float32_gives(built: dict[str, Way]) -> None:
    """Where no choice of boxes may turn out otherwise."""
    pictures = photos(1)[0]
    for kind in ("grid", "patches"):
        with torch.inference_mode():
            low, high = Way(kind, "bf16", "cpu", TINY)(pictures, TEXT[:1]), built[kind](pictures, TEXT[:1])
        assert (low - high).norm() < 0.1 * high.norm()
    low_way = Way("regions", "bf16", "cpu", TINY)
    with torch.inference_mode():
        found = low_way.regions(low_way.prepared(pictures))[0]
    assert found.shape == (4, 1024 + 4) and found.dtype is torch.bfloat16
    assert found[:, -4:].min() >= 0 and found[:, -4:].max() <= 1.01  # places, as shares of the picture


def test_the_transformer_reads_features_as_vilt_reads_patches() -> None:
    torch.manual_seed(0)
    model = transformer(TINY, 0).eval()
    nn.init.zeros_(model.image.pos_embed)  # features have no positions
    image = torch.randn(2, 3, 64, 96)
    patches = model.image.patch_embed(image)
    first = model.image.cls_token.expand(2, 1, -1)
    expected = model.answer(image, TEXT)
    model.image.patch_embed = nn.Identity()
    torch.testing.assert_close(answer(model, list(torch.cat([first, patches], 1)), TEXT), expected)


def naive(boxes: Tensor, scores: Tensor) -> set[int]:
    """One class's boxes that no surer one covers, one by one."""
    stay: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        if all(box_iou(boxes[i : i + 1], boxes[j : j + 1]) <= OVERLAP for j in stay):
            stay.append(i)
    return set(stay)


def test_regions_are_the_surest_that_no_surer_one_of_their_class_covers() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(30, 2, generator=generator) * 20
    boxes = torch.cat([corners, corners + 10 + 5 * torch.rand(30, 2, generator=generator)], 1)
    scores = torch.rand(30, 3, generator=generator)
    highest = torch.zeros(30)
    for k in range(3):
        for i in naive(boxes, scores[:, k]):
            highest[i] = max(highest[i], scores[i, k])
    expected = highest.argsort(descending=True)[:6].tolist()
    assert best(boxes, scores, 6, True).tolist() == expected
    together = naive(boxes, scores.amax(1))
    assert len(together) < 30
    once = best(boxes, scores, 6, False).tolist()
    assert once == sorted(together, key=lambda i: -scores[i].max())[:6]


def test_batch_norm_inside_the_convolutions_changes_nothing() -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    net, pixels = resnet18(), torch.randn(2, 3, 64, 64)
    with_norm: list[Tensor] = []

    class Watched(nn.Module):
        """`settle` runs it once in training, whose statistics it keeps: on the same pictures it must give the same."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(x)
            with_norm.append(out)
            return out

    settle(watched := Watched())
    assert not any(isinstance(part, nn.BatchNorm2d) for part in net.modules())
    seen = torch.stack([torch.from_numpy(one[:128, :128]).permute(2, 0, 1) / 128.0 - 1 for one in photos(2)[0]])
    with torch.no_grad():
        again = watched(seen)
        assert net(pixels).isfinite().all()
    assert torch.nn.functional.cosine_similarity(again, with_norm[0]).min() > 0.98  # variances by n - 1, not by n


def test_operations_of_patches_are_those_of_their_shapes(built: dict[str, Way]) -> None:
    n, d = 12 + 1 + 4, TINY.width
    block = 24 * n * d * d + 4 * n * n * d
    last = 4 * n * d * d + 20 * d * d + 4 * n * d
    head = 2 * d * d + 2 * d * 2 * d + 2 * 2 * d * TINY.answers
    expected = (block + last + head + 2 * 4 * 3 * 32**2 * d) / 1e9
    assert gflops(built["patches"], photos(1)[0], TEXT[:1]) == pytest.approx(expected, rel=1e-6)


def test_pictures_are_drawn_where_there_are_no_photographs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ways, "PICTURES", tmp_path)
    pictures, what = photos(2)
    assert what == "drawn scenes"
    assert all(one.shape == (480, 640, 3) and one.std() > 5 for one in pictures)
    assert (pictures[0] != pictures[1]).any()


# The tables


def row(way: str, precision: str, runs: list[float], **changes: Any) -> dict[str, Any]:
    """What `measured` gives."""
    parts = dict.fromkeys(PARTS, 0.0) | {"features": 30.0, "Transformer": 10.0}
    plain = {
        "way": way, "precision": precision, "batch": 1, "runs": runs, "parts": parts, "gflops": 12.3,
        "parameters": 94_100_000, "memory_mib": 15.0, "device": "cpu", "machine": "abacus", "threads": 2,
        "pictures": "drawn scenes", "torch": "2.11", "torchvision": "0.26", "date": "2026-01-02T03:04:05+00:00",
    }  # fmt: skip
    return plain | changes


def rows(**changes: Any) -> list[dict[str, Any]]:
    return [
        row(way, precision, [40.0, 10.0, 20.0] if way == "patches" else [80.0, 90.0, 100.0], **changes)
        for precision in ("float32", "bf16")
        for way in WAYS
    ]


def test_ratios_are_medians_of_those_within_a_turn() -> None:
    page = tables(rows())
    memory = "15.0 / 15.0"
    assert f"| regions, NMS for each class | 90.0 (5.00 ×) | 90.0 (5.00 ×) | 12.3 | 94.1 | {memory} |" in page
    assert f"| patches: ViLT-B/32 | 20.0 | 20.0 | 12.3 | 94.1 | {memory} |" in page
    assert "| a ResNet-50's map, bf16 |  | 30.0 (75%) |  |  | 10.0 (25%) |" in page
    assert "3 turns; drawn scenes; abacus, 2 threads, torch 2.11, torchvision 0.26; 2026-01-02." in page
    assert "Not measured on a GPU" in page
    assert "~900 (60.0 ×)" in page


def test_a_row_of_eight_pictures_tells_the_time_of_one() -> None:
    page = tables([*rows(), *rows(batch=8)])
    assert "one, float32, ms | one, bf16, ms | each of 8, float32, ms | each of 8, bf16, ms" in page
    assert "| patches: ViLT-B/32 | 20.0 | 20.0 | 2.50 | 2.50 |" in page


def test_the_last_measurement_on_each_device_is_shown() -> None:
    early = rows(date="2025-01-02T03:04:05+00:00", machine="slate")
    page = tables([*rows(), *early, *rows(device="cuda", machine="loom")])
    assert "slate" not in page and "abacus" in page and "loom" in page
    assert "Not measured on a GPU" not in page


def test_the_page_is_written_from_the_rows_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "regions.md").write_text("before\n<!-- regions -->\nold\n<!-- /regions -->\nafter\n")
    monkeypatch.setattr(regions, "DOCS", tmp_path)
    monkeypatch.setattr(regions, "kept", lambda _: rows())
    monkeypatch.setattr("sys.argv", ["regions", "--write"])
    assert regions.main() == 0
    page = (tmp_path / "regions.md").read_text()
    assert page.startswith("before\n") and page.endswith("after\n")
    assert tables(rows()) in page and "old" not in page
