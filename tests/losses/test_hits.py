import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.losses.contrastive import contrastive_loss
from pictura.losses.hits import count_hits
from pictura.losses.sigmoid import sigmoid_loss

ONE = torch.tensor(1.0)


def hits_of(loss: str, image: Tensor, text: Tensor, rows: slice | None, scale: float = 14.3) -> float:
    """As each loss reports them, in blocks that do not divide the rows."""
    if loss == "sigmoid":
        return sigmoid_loss(image, text, torch.tensor(scale), torch.tensor(-10.0), rows=rows, block=70)[1].item()
    return contrastive_loss(image, text, torch.tensor(scale), rows=rows, block=70)[1].item()


def test_own_is_on_the_diagonal_from_the_offset_on() -> None:
    z = torch.tensor([[0.1, 0.9, 0.2, 0.3], [0.5, 0.4, 0.3, 0.1]])
    assert count_hits(z, 1, ONE) == 1
    assert count_hits(z, 0, ONE) == 0
    assert count_hits(z, 2, ONE) == 0


def test_a_tie_counts_against() -> None:
    assert count_hits(torch.tensor([[0.5, 0.5 - 2e-6]]), 0, ONE) == 1
    assert count_hits(torch.tensor([[0.5, 0.5]]), 0, ONE) == 0
    assert count_hits(torch.tensor([[0.5, 0.5 - 5e-7]]), 0, ONE) == 0
    assert count_hits(torch.tensor([[50.0, 50.0 - 5e-5]]), 0, 100 * ONE) == 0


def test_one_alone_is_a_hit_and_nan_is_none() -> None:
    assert count_hits(torch.tensor([[-3.0]]), 0, ONE) == 1
    assert count_hits(torch.full((3, 3), torch.nan), 0, ONE) == 0


def test_it_leaves_the_similarities_alone() -> None:
    z = torch.randn(4, 9)
    before = z.clone()
    count_hits(z, 3, ONE)
    assert torch.equal(z, before)


@pytest.mark.parametrize("loss", ["contrastive", "sigmoid"])
@pytest.mark.parametrize("rows", [None, slice(3, 17)])
@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_a_collapsed_model_has_none(loss: str, rows: slice | None, scale: float) -> None:
    torch.manual_seed(0)
    one = F.normalize(torch.randn(1, 65), dim=1).expand(20, -1).contiguous()
    assert hits_of(loss, one, one, rows, scale) == 0


@pytest.mark.parametrize("loss", ["contrastive", "sigmoid"])
@pytest.mark.parametrize("rows", [None, slice(3, 17)])
def test_captions_given_twice(loss: str, rows: slice | None) -> None:
    """Of twenty pictures, the first six share three captions: nothing tells those apart."""
    text = torch.eye(20)
    text[:3] = text[3:6]
    right = (torch.arange(20) >= 6).float()
    assert hits_of(loss, text, text, rows) == pytest.approx(right[rows or slice(None)].mean().item())
