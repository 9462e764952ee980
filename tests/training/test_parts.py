import pytest
import torch
from torch import nn

from pictura.training.flops import count_flops
from pictura.training.parts import compile_blocks, freeze, recompute, remembering
from tests.training.toys import batch, task


def calls_of(toy: nn.Module) -> list[int]:
    """Grows by one whenever the toy's block computes."""
    calls: list[int] = []
    block = toy.get_submodule("model.blocks.0")
    forward = block.forward

    def counted(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        out: torch.Tensor = forward(x)
        return out

    block.forward = counted  # type: ignore[method-assign]
    return calls


def test_a_part_is_frozen_by_its_whole_name() -> None:
    toy = task()
    freeze(toy.model, ("text", "blocks.0"))
    frozen = {name for name, p in toy.model.named_parameters() if not p.requires_grad}
    assert frozen == {"text.weight", "text.bias", "blocks.0.weight", "blocks.0.bias"}
    with pytest.raises(
        ValueError, match=r"training\.freeze: the model has no part tex; it has image, text, blocks, drop"
    ):
        freeze(toy.model, ("tex",))


def test_recomputing_costs_a_second_forward_and_changes_nothing() -> None:
    plain, again = task(dropout=0.5), task(dropout=0.5)
    calls = calls_of(again)
    recompute(again)
    for toy in (plain, again):
        torch.manual_seed(0)
        toy(batch(0)).loss.backward()
    assert len(calls) == 2
    for (name, a), (_, b) in zip(plain.named_parameters(), again.named_parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        assert torch.equal(a.grad, b.grad), name


class Whole(nn.Module):
    """One block, in which one example's output depends on the others of its batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.GELU(), nn.Linear(4, 4)]
        self.blocks = nn.ModuleList([nn.Sequential(*layers, nn.BatchNorm1d(4, momentum=None))])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.blocks[0](x)
        return out


def steps(model: nn.Module, backwards: int = 1) -> dict[str, torch.Tensor]:
    """All that two steps of training leave behind: weights, running statistics and gradients."""
    torch.manual_seed(1)
    below = nn.Linear(4, 4)
    for x in torch.randn(2, 8, 4):
        loss = model(below(x)).square().sum()
        for _ in range(backwards):
            loss.backward(retain_graph=True)
    grads = {f"{name}.grad": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {**model.state_dict(), **grads}


@pytest.mark.parametrize("backwards", [1, 2])
@pytest.mark.parametrize("compiled", [False, True])
def test_recomputing_moves_running_statistics_once(backwards: int, compiled: bool) -> None:
    plain, again = Whole(), Whole()
    recompute(again)
    if compiled:  # without what a compiler makes of the graph, which takes long
        torch.compiler.reset()
        again.blocks[0].compile(backend="aot_eager")
    expected, found = steps(plain, backwards), steps(again, backwards)
    assert expected["blocks.0.2.num_batches_tracked"] == 2
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    fresh = Whole().state_dict()
    assert not torch.equal(expected["blocks.0.2.running_var"], fresh["blocks.0.2.running_var"])


def test_statistics_move_again_after_a_step_that_failed() -> None:
    model = Whole()
    recompute(model)
    with pytest.raises(RuntimeError):
        model(torch.randn(8, 5))
    model(torch.randn(8, 4)).sum().backward()
    assert model.state_dict()["blocks.0.2.num_batches_tracked"] == 1
    with torch.no_grad():
        model(torch.randn(8, 4))
    assert model.state_dict()["blocks.0.2.num_batches_tracked"] == 2
    assert model.get_submodule("blocks.0.2").momentum == 0.1


def test_what_is_thrown_away_does_not_count() -> None:
    def deeper() -> nn.Module:
        toy = task()
        toy.model.get_submodule("blocks").append(nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4)))  # type: ignore[operator]
        return toy

    toy = deeper()
    recompute(toy)
    with remembering(toy):
        assert count_flops(toy, batch(0)) == count_flops(deeper(), batch(0))
    assert count_flops(toy, batch(0)) > count_flops(deeper(), batch(0)), "outside, it computes again"


def test_every_block_may_compile() -> None:
    toy = task()
    toy.model.get_submodule("blocks").extend(nn.Linear(4, 4) for _ in range(63))  # type: ignore[operator]
    with torch._dynamo.config.patch(recompile_limit=8, accumulated_recompile_limit=256):
        compile_blocks(toy)
        assert torch._dynamo.config.recompile_limit >= 8 * 64
        assert torch._dynamo.config.accumulated_recompile_limit >= 8 * 64
    assert all(block._compiled_call_impl is not None for block in toy.model.get_submodule("blocks"))  # type: ignore[union-attr]
