"""Muon against torch's, step by step, in bf16 and in float32."""

import pytest
import torch
from torch import Tensor

from pictura.training import muon
from pictura.training.muon import Muon, orthogonal

SHAPES = ((6, 6), (12, 4), (4, 12))


def trained(kind: type[torch.optim.Optimizer], **options: str) -> list[Tensor]:
    """Matrices after three steps, and what is remembered of them; one of four has no gradient."""
    generator = torch.Generator().manual_seed(0)
    own = [torch.randn(shape, generator=generator).requires_grad_() for shape in (*SHAPES, (3, 3))]
    optimizer = kind(own, lr=0.05, weight_decay=0.1, momentum=0.9, **options)  # type: ignore[call-arg]
    for _ in range(3):
        for matrix in own[:-1]:
            matrix.grad = torch.randn(matrix.shape, generator=generator)
        optimizer.step()
    assert own[-1] not in optimizer.state
    return [*own, *(optimizer.state[matrix]["momentum_buffer"] for matrix in own[:-1])]


def test_in_bf16_every_bit_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "runs_here", lambda: True)
    for ours, theirs in zip(trained(Muon), trained(torch.optim.Muon, adjust_lr_fn="match_rms_adamw"), strict=True):
        assert torch.equal(ours, theirs)


def test_where_there_is_no_bf16_it_is_the_same_but_for_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "runs_here", lambda: False)
    theirs = trained(torch.optim.Muon, adjust_lr_fn="match_rms_adamw")
    for one, other in zip(trained(Muon), theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.005)


@pytest.mark.parametrize("shape", SHAPES)
def test_in_float32_a_matrix_is_turned_as_its_singular_vectors_say(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The iteration is odd in the matrix, so that it changes the singular values alone."""
    monkeypatch.setattr(muon, "runs_here", lambda: False)
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    kept = matrix.clone()
    found = orthogonal(matrix)
    assert found.dtype is torch.float32 and torch.equal(matrix, kept)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    values = left.T @ found @ right.T
    torch.testing.assert_close(values, torch.diag(values.diagonal()), rtol=0, atol=1e-4)
    assert 0.6 < float(values.diagonal().min()) <= float(values.diagonal().max()) < 1.3
