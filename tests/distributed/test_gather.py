import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pictura.distributed import ranks
from pictura.distributed.gather import gather, shared_mean
from tests.distributed.conftest import in_processes

Results = list[dict[str, Any]]
SHARED = {"as many": (3, 3), "uneven": (5, 2), "one has none": (0, 4), "the other has none": (4, 0), "none": (0, 0)}


def values(rows: slice = slice(None)) -> Tensor:
    return torch.randn(7, generator=torch.Generator().manual_seed(0))[rows]


def mean_of_squares(rows: slice) -> dict[str, Tensor]:
    """The shared mean of some of the rows, (weight x)² + 1, and its gradients for the weight and for each x."""
    weight, x = nn.Parameter(torch.tensor(0.7)), values(rows).requires_grad_()
    mean = shared_mean((weight * x).square() + 1)
    mean.backward()
    assert weight.grad is not None and x.grad is not None
    return {"mean": mean.detach(), "weight": weight.grad, "x": x.grad}


def compiled(rows: slice) -> dict[str, Tensor]:
    """Twice the features of all, by code that is compiled around the gathering, and the gradients of their sum."""

    def twice(x: Tensor) -> Tensor:
        return gather({"x": x + 1})["x"] * 2

    x = values(rows).requires_grad_()
    whole = torch.compile(twice, backend="eager")(x)
    whole.sum().backward()
    assert x.grad is not None
    return {"whole": whole.detach(), "x": x.grad}


def main(folder: Path) -> None:
    """In each of two processes: its rows come after those of the processes before it."""
    r = ranks.start("gloo", timeout=60).rank
    own = {name: slice(sum(many[:r]), sum(many[: r + 1])) for name, many in SHARED.items()}
    found = {name: mean_of_squares(rows) for name, rows in own.items()}
    torch.save(found | {"compiled": compiled(slice(3 * r, 3 * r + 3))}, folder / f"{r}.pt")
    ranks.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return in_processes(Path(__file__), tmp_path_factory.mktemp("shared"))


def test_alone_there_is_nothing_to_gather() -> None:
    features = {"image": torch.zeros(3, 2)}
    assert gather(features)["image"] is features["image"]
    assert gather({}) == {}


def test_everybody_has_everything_in_order_of_rank(results: Results) -> None:
    own = [result["gather"]["own"] for result in results]
    for result in results:
        for name, whole in result["gather"]["whole"].items():
            expected = torch.cat([o[name] for o in own])
            assert whole.dtype == expected.dtype
            assert torch.equal(whole, expected), name


def test_one_collective_each_way(results: Results) -> None:
    for result in results:
        assert result["gather"]["calls"] == ["_all_gather", "_reduce_scatter"]


def test_gradients_are_summed_over_processes(results: Results) -> None:
    for result in results:
        found = result["gather"]
        assert found["differentiable"] == list(found["gradients"]) == ["float32", "bfloat16", "float64"]
        for name, gradient in found["gradients"].items():
            # process r adds (r + 1) x²: 2 x + 4 x
            own = found["own"][name]
            assert gradient.dtype == own.dtype
            assert torch.equal(gradient, (6 * own.double()).to(own.dtype)), name


def test_unequal_processes_are_told_apart(results: Results) -> None:
    for rank, result in enumerate(results):
        said = result["refusals"]
        assert f"between 2 and 3 examples (process {rank}: {3 - rank})" in said["sizes"]
        assert "different features" in said["names"] and ("image" if rank else "text") in said["names"]
        assert "different features" in said["dtypes"] and ("float32" if rank else "bfloat16") in said["dtypes"]


def test_inside_compiled_code(shared: Results) -> None:
    for result in shared:
        torch.testing.assert_close(result["compiled"]["whole"], 2 * (values(slice(6)) + 1))
        torch.testing.assert_close(result["compiled"]["x"], torch.full((3,), 4.0))  # 2 of each process


def test_importing_it_does_not_import_the_compiler() -> None:
    code = "import sys, pictura.distributed.gather; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("many", SHARED)
def test_the_shared_mean_is_that_of_the_rows_of_all(shared: Results, many: str) -> None:
    """Averaged over processes, as DDP and FSDP average gradients; where there is no row at all it is zero, not NaN."""
    x, weight = values(slice(sum(SHARED[many]))).requires_grad_(), torch.tensor(0.7, requires_grad=True)
    rows = (weight * x).square() + 1
    (rows.mean() if len(rows) else rows.sum()).backward()
    found = [result[many] for result in shared]
    assert [len(one["x"]) for one in found] == list(SHARED[many])
    mean, gradient = (torch.stack([one[what] for one in found]).mean(0) for what in ("mean", "weight"))
    torch.testing.assert_close(mean, rows.detach().sum() / max(1, len(rows)))
    torch.testing.assert_close(gradient, weight.grad)
    torch.testing.assert_close(torch.cat([one["x"] for one in found]) / 2, x.grad)


def test_alone_the_shared_mean_is_the_mean() -> None:
    found = mean_of_squares(slice(5))
    torch.testing.assert_close(found["mean"], (0.7 * values()[:5]).square().mean() + 1)
    torch.testing.assert_close(found["x"], 2 * 0.49 * values()[:5] / 5)
    assert mean_of_squares(slice(0))["mean"] == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    ranks.leave(0)
