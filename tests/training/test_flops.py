import pytest
import torch
from torch import nn

from pictura.objectives.base import Task
from pictura.prepare import prepare
from pictura.training.flops import count_flops
from tests.tiny import tiny
from tests.training.toys import Match, Toy, batch, task


def test_a_closed_form() -> None:
    """Three linear maps and one matrix of similarities, of eight examples; backward does each product twice, once for
    the inputs (not where these are data) and once for the weights."""
    b, e = 8, 4
    image, block, text, similar = 2 * b * 6 * e, 2 * b * e * e, 2 * b * 5 * e, 2 * b * b * e
    forward = image + block + text + similar
    backward = image + 2 * block + text + 2 * similar
    assert count_flops(task(), batch(0)) == (forward + backward) / b


def test_a_clip_by_hand() -> None:
    """Attention, MLP and projections of both towers, forward; backward is twice that, less what data needs none of."""
    prepared = prepare(tiny())
    given = {k: v[:2] for k, v in next(iter(prepared.batches.iterate())).items()}
    d, n, t = 32, 4, given["text"].shape[1]
    words = float((given["text"] > 0).sum()) / 2  # only attention sees the padding
    per_token = 2 * (3 * d * d + d * d + 2 * 4 * d * d)
    towers = 2 * ((n + words) * per_token + 2 * 2 * (n * n + t * t) * d)
    projections = 2 * d * 16 * 2 + 2 * n * (3 * 8 * 8) * d
    whole = 3 * (towers + projections)
    assert 0.6 * whole < count_flops(prepared.task, given) < whole, "the last text block computes one token only"


def test_it_leaves_no_trace() -> None:
    toy = task(dropout=0.5)
    toy.model.get_submodule("blocks").append(nn.BatchNorm1d(4))  # type: ignore[operator]
    before = {name: tensor.clone() for name, tensor in toy.state_dict().items()}
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    count_flops(toy, batch(0))
    assert torch.equal(torch.rand(3), wanted)
    assert all(torch.equal(before[name], tensor) for name, tensor in toy.state_dict().items())
    assert all(p.grad is None for p in toy.parameters())


@pytest.mark.filterwarnings("default")
def test_nothing_is_compiled_for_it() -> None:
    graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    model = Toy()
    model.blocks[0].compile(backend=backend)
    toy = Task(model, {"match": Match()}, {"match": 1.0})
    assert count_flops(toy, batch(0)) == count_flops(task(), batch(0))
    assert graphs == []
    toy(batch(0))
    assert len(graphs) == 1, "but training compiles"
