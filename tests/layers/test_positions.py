from types import SimpleNamespace

import pytest
import torch
from open_clip.model import resize_pos_embed

from pictura.layers.positions import resize_positions


def test_one_size_is_left_alone() -> None:
    positions = torch.randn(1, 17, 3)
    assert resize_positions(positions, (4, 4), (4, 4)) is positions


@pytest.mark.parametrize("new", [8, 5, 3, 16])
def test_against_open_clip(new: int) -> None:
    torch.manual_seed(0)
    positions = torch.randn(1, 1 + 7 * 7, 6)
    state = {"visual.positional_embedding": positions[0].clone()}
    resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=(new, new))))
    torch.testing.assert_close(resize_positions(positions, (7, 7), (new, new))[0], state["visual.positional_embedding"])


@pytest.mark.parametrize("extra", [0, 1, 3])
def test_extra_tokens_stay_as_they_are(extra: int) -> None:
    positions = torch.randn(1, extra + 12, 5)
    resized = resize_positions(positions, (3, 4), (6, 2))
    assert resized.shape == (1, extra + 12, 5)
    assert torch.equal(resized[:, :extra], positions[:, :extra])
    assert not torch.allclose(resized[:, extra:], positions[:, extra:])


def test_rows_are_y_and_columns_x() -> None:
    grid = torch.arange(4.0)[:, None].expand(4, 6).reshape(1, 24, 1)  # grows with y
    resized = resize_positions(grid, (4, 6), (8, 3)).view(8, 3)
    assert (resized.diff(dim=0) > 0).all()
    torch.testing.assert_close(resized[:, :1].expand(8, 3), resized)


def test_what_is_the_same_everywhere_stays_so() -> None:
    torch.testing.assert_close(
        resize_positions(torch.full((1, 16, 2), 0.3), (4, 4), (7, 9)), torch.full((1, 63, 2), 0.3)
    )


def test_type_and_gradient_are_kept() -> None:
    positions = torch.randn(1, 17, 3, dtype=torch.bfloat16, requires_grad=True)
    resized = resize_positions(positions, (4, 4), (2, 2))
    assert resized.dtype == torch.bfloat16
    resized.sum().backward()
    assert (positions.grad != 0).all()
