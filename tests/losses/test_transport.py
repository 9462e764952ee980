"""Against a loop over examples and iterations in float64, and against a linear programme's answer."""

import itertools

import torch
from torch import Tensor

from pictura.losses.transport import alignment_distance, transport_plan


def naive(cost: Tensor, beta: float, steps: int) -> Tensor:
    """Algorithm 1 of Xie et al. 2018 for one pair, cost: [n m], with uniform shares."""
    n, m = cost.shape
    plan = torch.ones(n, m, dtype=torch.float64)
    word = torch.full((n,), 1 / n, dtype=torch.float64)
    for _ in range(steps):
        for i, j in itertools.product(range(n), range(m)):
            plan[i, j] *= torch.exp(-cost[i, j] / beta)
        patch = torch.stack([1 / (m * sum(plan[i, j] * word[i] for i in range(n))) for j in range(m)])
        word = torch.stack([1 / (n * sum(plan[i, j] * patch[j] for j in range(m))) for i in range(n)])
        for i, j in itertools.product(range(n), range(m)):
            plan[i, j] *= word[i] * patch[j]
    return plan


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    words, patches = torch.randn(3, 4, 6, generator=generator), torch.randn(3, 5, 6, generator=generator)
    is_word = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 0, 0]]).bool()
    is_patch = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()
    return words, patches, is_word, is_patch


def test_each_pair_of_a_batch_gets_the_plan_that_it_has_alone() -> None:
    words, patches, is_word, is_patch = batch()
    cost = 1 - torch.nn.functional.normalize(words, dim=2) @ torch.nn.functional.normalize(patches, dim=2).mT
    plan = transport_plan(cost, is_word, is_patch, steps=7)
    for i in range(3):
        own = cost[i][is_word[i]][:, is_patch[i]].double()
        torch.testing.assert_close(
            plan[i][is_word[i]][:, is_patch[i]].double(), naive(own, 0.5, 7), rtol=1e-5, atol=1e-7
        )
        assert not plan[i][~is_word[i]].any() and not plan[i][:, ~is_patch[i]].any()


def test_every_word_and_every_patch_carries_its_share() -> None:
    words, patches, is_word, is_patch = batch()
    plan = transport_plan(1 - words @ patches.mT / 9, is_word, is_patch, steps=200)
    for share, mask in ((plan.sum(2), is_word), (plan.sum(1), is_patch)):
        torch.testing.assert_close(share, mask / mask.sum(1, keepdim=True), atol=1e-4, rtol=0)


def test_as_many_words_as_patches_are_moved_one_by_one() -> None:
    """The exact plan of equal shares is a permutation, the best of all (Birkhoff)."""
    generator = torch.Generator().manual_seed(3)
    cost = torch.rand(1, 5, 5, generator=generator)
    everything = torch.ones(1, 5, dtype=torch.bool)
    plan = transport_plan(cost, everything, everything, steps=3000)
    best = min(sum(float(cost[0, i, j]) for i, j in enumerate(order)) for order in itertools.permutations(range(5))) / 5
    assert abs(float((plan * cost).sum()) - best) < 1e-4


def test_the_distance_and_its_gradient_take_the_plan_as_it_is() -> None:
    words, patches, is_word, is_patch = batch()
    words.requires_grad_()
    found = alignment_distance(words, patches, is_word, is_patch, steps=9)
    cost = 1 - torch.nn.functional.cosine_similarity(words[:, :, None], patches[:, None], dim=3)
    plan = transport_plan(cost.detach(), is_word, is_patch, steps=9)
    right = torch.stack(
        [sum((cost[i, a, b] * plan[i, a, b] for a in range(4) for b in range(5)), cost.new_zeros(())) for i in range(3)]
    )
    torch.testing.assert_close(found, right)
    weight = torch.tensor([1.0, -2.0, 3.0])
    (ours,), (theirs,) = (torch.autograd.grad((x * weight).sum(), words) for x in (found, right))
    torch.testing.assert_close(ours, theirs)


def test_without_tokens_there_is_no_distance() -> None:
    words, patches, is_word, is_patch = batch()
    is_word[1] = False
    found = alignment_distance(words, patches, is_word, is_patch)
    assert found[1] == 0 and found.isfinite().all()
