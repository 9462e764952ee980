from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pictura.distributed.batch_norm import SyncBatchNorm, batch_norms, statistics, still, synchronise
from tests.distributed import worker

Results = list[dict[str, Any]]
MODES = ("ddp", "fsdp")


@pytest.mark.parametrize("name", worker.NORMS)
def test_two_processes_normalise_as_one(results: Results, name: str) -> None:
    """Four examples in one, two in the other."""
    expected = worker.normalised(name, slice(6))
    found = [result["norms"][name] for result in results]
    tolerance = {"float64": 1e-12, "bf16 within": 2**-7, "far from zero": 2e-4}.get(name, 1e-6)

    def check(what: Any, whole: Any) -> None:
        torch.testing.assert_close(what, whole, rtol=tolerance, atol=tolerance)

    for i in range(2):
        check(torch.cat([f["out"][i] for f in found]), expected["out"][i])
    check(torch.cat([f["input"] for f in found]), expected["input"])
    if name != "without statistics":  # then each batch has its own, as in torch
        check(torch.cat([f["evaluated"] for f in found]), expected["evaluated"])
    for key, gradient in expected["gradients"].items():
        assert found[0]["gradients"][key].dtype == gradient.dtype
        torch.testing.assert_close(
            sum(f["gradients"][key] for f in found), gradient, rtol=10 * tolerance, atol=10 * tolerance
        )
    for one in found:
        assert one["state"].keys() == expected["state"].keys()
        for key, tensor in expected["state"].items():
            torch.testing.assert_close(one["state"][key], tensor, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(found[0]["state"][key], found[1]["state"][key]) for key in expected["state"])


def test_one_value_has_no_variance(results: Results) -> None:
    for result in results:
        assert "one value for each channel in all processes together has no variance" in result["lonely"]


@pytest.mark.parametrize("mode", MODES)
def test_a_step_of_two_processes_is_that_of_one(results: Results, mode: str) -> None:
    expected = worker.one_step(worker.resnet_task(), worker.labelled())
    assert expected["norm"] > 2 * worker.MAX_NORM  # or clipping would not be tested
    assert len(expected["gradients"]) > 30
    for result in results:
        found = result["resnet"][mode]
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        torch.testing.assert_close(found["norm"], expected["norm"], rtol=1e-4, atol=0)
        for what in ("gradients", "after", "statistics"):
            assert found[what].keys() == expected[what].keys()
            for name, value in expected[what].items():
                torch.testing.assert_close(
                    found[what][name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name, w=what: f"{w} of {n}: {m}"
                )
        torch.testing.assert_close(found["scores"], expected["scores"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_processes_stay_equal_and_norms_float32_in_bf16(results: Results, mode: str) -> None:
    first, second = (result["trained resnet"][mode] for result in results)
    for what in ("after", "averaged", "statistics"):
        assert first[what].keys() == second[what].keys()
        assert all(torch.equal(first[what][name], second[what][name]) for name in first[what]), what
        assert all(tensor.dtype == torch.float32 for name, tensor in first[what].items() if "tracked" not in name)
    assert first["seen"] == ["torch.bfloat16 torch.float32 torch.float32 torch.bfloat16"]
    name = "image.layer4.0.bn2.running_var"
    assert not torch.equal(first["averaged"][name], first["statistics"][f"model.{name}"])


def test_sharded_and_replicated_learn_alike_in_bf16(results: Results) -> None:
    """Blocks that compute again in the backward pass, norms gathered beside them."""
    ddp, fsdp = (results[0]["trained resnet"][mode] for mode in MODES)
    for result in (ddp, fsdp):
        expected = worker.resnet_task()(worker.labelled()).loss.item()
        assert result["losses"][0] == pytest.approx(expected, rel=0.02) != result["losses"][1]
    assert fsdp["losses"] == pytest.approx(ddp["losses"], rel=0.01)
    assert fsdp["norms"] == pytest.approx(ddp["norms"], rel=0.05)
    for name, tensor in ddp["statistics"].items():
        torch.testing.assert_close(fsdp["statistics"][name], tensor, rtol=0.05, atol=0.02)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.BatchNorm1d(4, affine=False)))


def test_statistics_by_the_names_of_the_state_dict() -> None:
    toy = model()
    state = toy.state_dict(keep_vars=True)
    found = dict(statistics(toy))
    assert set(found) == {f"{part}.running_{what}" for part in ("1", "2.0") for what in ("mean", "var")}
    assert all(found[name] is state[name] for name in found)
    assert set(dict(statistics(toy[1]))) == {"running_mean", "running_var"}  # type: ignore[index]
    assert not dict(statistics(nn.BatchNorm1d(2, track_running_stats=False)))


def test_synchronised_in_place() -> None:
    toy = model()
    norm, parameters, state = toy[1], list(toy.parameters()), toy.state_dict()  # type: ignore[index]
    synchronise(toy)
    assert toy[1] is norm and isinstance(norm, SyncBatchNorm)  # type: ignore[index]
    assert all(a is b for a, b in zip(toy.parameters(), parameters, strict=True))
    assert toy.state_dict().keys() == state.keys()
    assert [name for name, _ in batch_norms(toy)] == ["1", "2.0"]
    x = torch.randn(5, 3)
    torch.testing.assert_close(toy.eval()(x), model().eval()(x))


@pytest.mark.parametrize("repeated", [True, False])
def test_a_pass_that_repeats_another_moves_no_statistics(repeated: bool) -> None:
    def passes(part: nn.Module) -> Any:
        return (still(nn.Module()), still(part) if repeated else still(nn.Module()))

    toy, peer = model(), model()
    x = torch.randn(5, 3, requires_grad=True)
    out: Tensor = checkpoint(toy, x, use_reentrant=False, context_fn=lambda: passes(toy))
    out.square().sum().backward()
    gradient, x.grad = x.grad, None
    peer(x).square().sum().backward()
    torch.testing.assert_close(gradient, x.grad)
    same = all(torch.equal(tensor, peer.state_dict()[name]) for name, tensor in toy.state_dict().items())
    assert same == repeated
