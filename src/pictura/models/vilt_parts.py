"""What a ViLT has beside its Transformer: BERT's embedding of words before it, and heads behind it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.layers.dropout import Dropout
from pictura.layers.linear import Linear
from pictura.models.base import TextConfig, check_positive


@dataclass(frozen=True, kw_only=True)
class WordsConfig(TextConfig):
    """Word-piece embeddings; the vocabulary is BERT's, or what a recipe's tokenizer has. mask_token: the id that hides
    a word in masked language modelling."""

    vocab_size: int = 30522
    context_length: int = 40
    end_token: int | None = 102
    mask_token: int | None = 103
    eps: float = 1e-12

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(eps=self.eps)


class WordEmbedding(nn.Module):
    """BERT's (Devlin et al. 2019, section 3): words and their places, normalised."""

    def __init__(self, config: WordsConfig, width: int, dropout: float) -> None:
        super().__init__()
        self.word_embed = nn.Embedding(config.vocab_size, width)
        self.pos_embed = nn.Parameter(torch.empty(config.context_length, width))
        self.norm = nn.LayerNorm(width, eps=config.eps)
        self.dropout = Dropout(dropout)

    def forward(self, text: Tensor, inside: Tensor) -> Tensor:
        """text: [b t] ids, inside: [b t], where tokens are -> [n d], the texts side by side."""
        places = torch.arange(text.shape[1], device=text.device).expand_as(text)[inside]
        x = F.embedding(text[inside], self.word_embed.weight) + F.embedding(places, self.pos_embed)
        out: Tensor = self.dropout(self.norm(x))
        return out


class WordsHead(nn.Module):
    """[m d] -> [m k]: which of k words stood behind each mask; BERT's, not tied to the embeddings."""

    def __init__(self, width: int, eps: float, k: int) -> None:
        super().__init__()
        self.dense = Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.decoder = Linear(width, k)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.norm(F.gelu(self.dense(x))))
        return out


class PatchesHead(WordsHead):
    """[m d] -> [m 3 256]: how much there was of each colour; `mask_token` stands in place of what is hidden."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps, 3 * 256)
        self.mask_token = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x).unflatten(1, (3, 256))
        return out


class TwoLayers(nn.Module):
    """[b d] -> [b k], as ViLT answers questions and compares pictures (released code)."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.fc2 = Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.norm(self.fc1(x))))
        return out
