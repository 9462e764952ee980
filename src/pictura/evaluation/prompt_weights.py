"""How much each prompt template should count: found without labels, or with a few.

vectors: [t e k], what each of t templates says of k classes; features: [n e], pictures; both of unit length.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 60  # of L-BFGS


def unlabelled(vectors: Tensor, features: Tensor, scale: float) -> Tensor:
    """-> [t], which sum to 1: templates that make pictures decide count for more (Allingham et al. 2023, section 3).

    The weights are the softmax of what `decided` says of each. The paper takes away the mean over pre-training pictures
    too, which nobody has at hand.
    """
    return decided(vectors, features, scale).softmax(0)


def decided(vectors: Tensor, features: Tensor, scale: float) -> Tensor:
    """-> [t], how much each template makes the pictures decide: the mean over pictures of the highest logit, after each
    class's mean logit is taken away, so that words which lie near all pictures do not count."""
    scores = []
    for own in vectors:
        logits = scale * (features @ own)
        scores.append((logits - logits.mean(0)).amax(1).mean())
    return torch.stack(scores)


def labelled(vectors: Tensor, features: Tensor, label: Tensor, scale: float, l2: float = 0.01) -> Tensor:
    """-> [t], which sum to 1 and make the cross-entropy of label: [n] least, by L-BFGS from equal weights.

    l2 is the strength of a penalty on the mean square of the weights' logits, which keeps those near each other that
    few pictures tell little of.
    """
    logits = torch.zeros(len(vectors), requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        classes = F.normalize(torch.einsum("t,tek->ek", logits.softmax(0), vectors), dim=0)
        total = F.cross_entropy(scale * (features @ classes), label) + l2 * logits.square().mean()
        total.backward()
        return total

    with torch.enable_grad():
        optimizer.step(loss)
    return logits.detach().softmax(0)
