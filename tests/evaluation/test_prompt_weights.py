import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.evaluation.prompt_weights import decided, labelled, unlabelled


def world(noise: tuple[float, ...], n: int = 400, k: int = 5, e: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """What templates say of k classes, some with more noise than others; pictures; their labels."""
    torch.manual_seed(0)
    centre = F.normalize(torch.randn(e, k), dim=0)
    vectors = torch.stack([F.normalize(centre + much * torch.randn(e, k), dim=0) for much in noise])
    label = torch.arange(n) % k
    return vectors, F.normalize(centre.T[label] + 0.3 * torch.randn(n, e), dim=1), label


def test_without_labels_it_is_a_plain_loop() -> None:
    vectors, x, _ = world((0.1, 0.5), n=20)
    scores = []
    for own in vectors:
        logits = [[20 * float(picture @ own[:, c]) for c in range(5)] for picture in x]
        mean = [sum(row[c] for row in logits) / 20 for c in range(5)]
        scores.append(sum(max(row[c] - mean[c] for c in range(5)) for row in logits) / 20)
    torch.testing.assert_close(decided(vectors, x, 20.0), torch.tensor(scores), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(unlabelled(vectors, x, 20.0), torch.tensor(scores).softmax(0), rtol=1e-4, atol=1e-6)


def test_noise_counts_for_less() -> None:
    vectors, x, label = world((0.02, 0.02, 3.0, 3.0))
    for weights in (unlabelled(vectors, x, 20.0), labelled(vectors, x, label, 20.0)):
        assert float(weights.sum()) == 1.0 or abs(float(weights.sum()) - 1) < 1e-6
        assert weights[:2].min() > weights[2:].max()


def test_words_that_lie_near_all_pictures_do_not_count() -> None:
    """A template that adds one direction to all classes says nothing, however near it lies."""
    vectors, x, _ = world((0.02, 0.02))
    common = F.normalize(x.mean(0), dim=0)
    near = F.normalize(0.05 * vectors[0] + common[:, None], dim=0)
    weights = unlabelled(torch.stack([vectors[0], near]), x, 20.0)
    assert weights[0] > weights[1]


def test_with_labels_no_other_weights_have_a_lower_loss() -> None:
    vectors, x, label = world((0.1, 1.0, 2.0))

    def loss(weights: Tensor) -> float:
        logits = weights.log() - weights.log().mean()
        classes = F.normalize((weights[:, None, None] * vectors).sum(0), dim=0)
        return float(F.cross_entropy(20 * x @ classes, label) + 0.01 * logits.square().mean())

    found = labelled(vectors, x, label, 20.0)
    for _ in range(50):
        assert loss(found) <= loss((found.log() + 0.1 * torch.randn(3)).softmax(0)) + 1e-6
    assert labelled(vectors, x, label, 20.0, l2=1e4).std() < 1e-3, "a strong penalty leaves them equal"
