"""A ViLT compiled as for training, whose every batch has other lengths and other sizes."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from pictura.layers.attention import LONG
from pictura.models.vilt import ViLT, ViLTConfig
from pictura.models.vilt_parts import WordsConfig
from pictura.models.vit import ViTConfig
from pictura.training.parts import compile_blocks

PATCH, LENGTH = 8, 12


def model_of(training: bool) -> ViLT:
    torch.manual_seed(0)
    image = ViTConfig(image_size=64, patch_size=PATCH, width=24, depth=2, heads=3)
    text = WordsConfig(vocab_size=40, context_length=LENGTH, end_token=2)
    return ViLTConfig(image=image, text=text).build().train(training)


def batch(b: int, patches: tuple[int, int], generator: torch.Generator) -> tuple[list[Tensor], Tensor]:
    """Pictures of so many patches on each side, and texts of any length."""
    sides = (PATCH * torch.randint(*patches, (b, 2), generator=generator)).tolist()
    text = torch.randint(3, 40, (b, LENGTH), generator=generator)
    text[torch.arange(b), torch.randint(1, LENGTH, (b,), generator=generator)] = 2
    return [torch.randn(3, *side, generator=generator) for side in sides], text


@pytest.fixture
def compiler() -> Iterator[None]:
    """Counts from nothing, and complains where it would give up."""
    torch.compiler.reset()
    counters.clear()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch asks for it itself, where a block begins
@pytest.mark.parametrize(
    ("training", "patches", "others"),
    [
        (True, (2, 5), (6, 7, 9)),
        (False, (2, 5), (6, 7, 9)),
        (False, (8, 11), (2, 4, 3)),  # long examples attend one by one, in a graph for each size of a batch
    ],
)
def test_it_is_compiled_for_few_shapes_and_reads_all_the_same(
    compiler: None, training: bool, patches: tuple[int, int], others: tuple[int, ...]
) -> None:
    """Outputs, and in training gradients. After the first batches none of whatever size is compiled for again."""
    model, peer = model_of(training), model_of(training)
    compile_blocks(model)
    generator, graphs = torch.Generator().manual_seed(0), list[int]()
    for b in (3, 2, 1, 4, 3, 2, 4, *others, *others):
        images, text = batch(b, patches, generator)
        if patches[0] >= LONG**0.5:
            assert min(image[0].numel() for image in images) >= LONG * PATCH**2
        found, expected = [], []
        for one, out in ((model, found), (peer, expected)):
            with torch.set_grad_enabled(training):
                out += [one.read(images, text), one(images, text).tokens]
                if training:
                    out += torch.autograd.grad(sum(x.square().sum() for x in out), list(one.image.blocks.parameters()))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        graphs.append(counters["stats"]["unique_graphs"])
    assert 0 < graphs[6] == graphs[-1], f"graphs after each batch: {graphs}"
