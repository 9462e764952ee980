"""Masked language modelling beside a picture (ViLT, Kim et al. 2021, section 3.2; BERT, Devlin et al. 2019, 3.1).

Whole words are hidden, all of their pieces: a piece that is left over often gives the word away without the picture
(section 3.3). Which ones is a function of (seed, epoch, index).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.data.randomness import uniforms
from pictura.distributed.gather import shared_mean
from pictura.losses.divergence import symmetric_divergence
from pictura.models.vilt import ViLT
from pictura.models.vilt_parts import WordsConfig
from pictura.objectives.base import Batch, Features, Objective, ObjectiveConfig, Outcome
from pictura.objectives.classification import IGNORED
from pictura.objectives.joint import check_joint

MASKED, RANDOM = 0.8, 0.9  # below the first a token is masked, below the second another one, else it stays


@dataclass(frozen=True, kw_only=True)
class MaskedWordsConfig(ObjectiveConfig):
    """share: of the words that are hidden, at least one of each text. whole: all pieces of a word, or each token by
    itself, for comparison."""

    kind: ClassVar[str] = "masked_words"

    share: float = 0.15
    whole: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise ValueError(f"share: {self.share} must be above 0 and below 1; the paper has 0.15")

    def build(self) -> "MaskedWords":
        """The objective."""
        return MaskedWords(self)


class MaskedWords(Objective):
    """Metrics: `hits`, the share of hidden tokens that are guessed."""

    needs = frozenset({"image", "text", "words", "seed"})

    def __init__(self, config: MaskedWordsConfig) -> None:
        super().__init__()
        self.config = config

    def attach(self, model: nn.Module) -> None:
        config = check_joint(model, "words").config
        if config.text.mask_token is None or config.text.end_token is None:
            raise ValueError(
                "needs a token that hides a word; take a tokenizer that has one, such as {kind: wordpiece}"
            )

    def embed(self, model: nn.Module, batch: Batch) -> Features:
        """-> tokens: [b t d] of the texts, zero but where something is hidden, label: [b t], IGNORED elsewhere."""
        assert isinstance(model, ViLT)
        text, words = batch["text"], batch["words"]
        if not self.config.whole:
            words = torch.arange(1, text.shape[1] + 1, device=text.device) * (words > 0)
        hidden, label = hide(text, words, batch["seed"], self.config.share, model.config.text)
        joint = model(batch["image"], hidden)
        asked = (label != IGNORED).repeat(len(joint.inside) // len(text), 1)  # twice, where there are two draws
        tokens = joint.tokens.new_zeros(*asked.shape, joint.tokens.shape[1])
        tokens[asked] = joint.words[asked[joint.inside]]
        return {"tokens": tokens, "label": label}

    def score(self, model: nn.Module, features: Features, rows: slice) -> Outcome:
        logits, label = self._asked(model, features, rows)
        losses = F.cross_entropy(logits, label, reduction="none")
        hits = (logits.argmax(1) == label).float()
        return Outcome(shared_mean(losses), {"hits": shared_mean(hits)})

    def divergence(self, model: nn.Module, one: Features, two: Features, rows: slice) -> Tensor:
        first, second = (self._asked(model, draw, rows)[0] for draw in (one, two))
        return shared_mean(symmetric_divergence(first, second))

    def _asked(self, model: nn.Module, features: Features, rows: slice) -> tuple[Tensor, Tensor]:
        """Scores of the hidden tokens alone, [m vocabulary] float32, and what they were, [m]."""
        assert isinstance(model, ViLT)
        tokens, label = features["tokens"][rows], features["label"][rows]
        asked = label != IGNORED
        return model.heads["words"](tokens[asked]).float(), label[asked]


def hide(text: Tensor, words: Tensor, seeds: Sequence[int], share: float, config: WordsConfig) -> tuple[Tensor, Tensor]:
    """text: [b t] ids, words: [b t] number of each token's word, from 1, 0 for what is no word's -> the text with a
    `share` of its words hidden, and what was there, [b t], IGNORED where nothing is asked.

    Of the hidden tokens 80 % are masked, 10 % another token and 10 % as they were (BERT, section 3.1).
    """
    t, most = text.shape[1], config.context_length
    assert config.mask_token is not None
    chance = uniforms(seeds, 3 * most).to(text.device)
    by_word = chance[:, :most].gather(1, (words - 1).clamp(min=0))
    by_word = by_word.masked_fill(words == 0, 2.0)
    hidden = (words > 0) & ((by_word < share) | (by_word == by_word.amin(1, keepdim=True)))
    how, which = chance[:, most : most + t], chance[:, 2 * most : 2 * most + t]
    another = (which * config.vocab_size).long()
    ends = torch.full_like(another, -1 if config.end_token is None else config.end_token)
    another = another.masked_fill(another == ends, config.mask_token)  # which would end the text early
    changed = torch.where(how < RANDOM, another, text).masked_fill(how < MASKED, config.mask_token)
    return torch.where(hidden, changed, text), text.masked_fill(~hidden, IGNORED)
