from typing import Any

import pytest

from pictura.models.base import check_grid, check_heads, check_positive, check_share


@pytest.mark.parametrize(("width", "given", "fit"), [(12, 5, 4), (500, 12, 10), (7, 8, 7), (12, 0, 1), (12, -3, 1)])
def test_heads_that_do_not_divide(width: int, given: int, fit: int) -> None:
    with pytest.raises(ValueError, match=rf"^heads: {given} does not divide width {width}; try {fit}$"):
        check_heads(given, width)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: check_positive(depth=2, width=0), "^width: 0 must be above zero$"),
        (lambda: check_positive(eps=float("inf")), "^eps: inf must be above zero$"),
        (lambda: check_positive(eps=float("nan")), "^eps: nan must be above zero$"),
        (lambda: check_share(drop_path=1.0), "^drop_path: 1.0 must be at least 0 and below 1$"),
        (lambda: check_share(dropout=0.1, drop_path=-0.1), "^drop_path: -0.1 must be at least 0 and below 1$"),
        (lambda: check_grid(225, 16), "^image_size: 225 is no multiple of patch_size 16; try 224$"),
        (lambda: check_grid(3, 16), "^image_size: 3 is no multiple of patch_size 16; try 16$"),
    ],
)
def test_numbers_that_cannot_be(call: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        call()


def test_numbers_that_can_be() -> None:
    check_heads(3, 12)
    check_positive(width=1, eps=1e-6)
    check_share(dropout=0.0, drop_path=0.99)
    check_grid(224, 16)
