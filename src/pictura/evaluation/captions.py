"""Captions that a model tells of pictures, against people's: CIDEr, BLEU-1 to 4 and ROUGE-L, by COCO's official code.

Papineni et al. 2002 (BLEU), Lin 2004 (ROUGE-L), Vedantam et al. 2015 (CIDEr; the code's is CIDEr-D, section 6), as in
Chen et al., Microsoft COCO Captions: Data Collection and Evaluation Server, 2015. CIDEr weighs words by how rare they
are among all true captions of the data: compare it on the same pictures only; of one picture it is 0.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pictura.data.batches import Batch, ordered, prefetch
from pictura.data.source import Source, SourceConfig
from pictura.evaluation.base import Evaluator, EvaluatorConfig, thumbnail
from pictura.evaluation.embed import Embedder, evaluating
from pictura.evaluation.panels import Gallery, Line, Panel, Picture
from pictura.models.beams import Caption, check_search

SHOWN = 8  # best and worst pictures in the report
TRUE = 3  # true captions beside each

STRAIGHT = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2026": " "})
CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|m|d|ll|re|ve))(?!\w)")
JOINED = re.compile(r"\b(can)(not)\b|\b(gon|wan)(na)\b|\b(got)(ta)\b|\b(gim|lem)(me)\b")
TOKEN = re.compile(
    r"(?:[^\W\d_]\.){2,}|\b(?:mr|mrs|ms|dr|st|jr|sr|vs|etc)\.|n't\b|'(?:s|m|d|ll|re|ve)\b"
    r"|\w+(?:[-'/&]\w+|(?<=\d)[.,:](?=\d)\w+)*|[^\w\s]"
)
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
PUNCTUATION = frozenset("'\"`.?!,:;-–—")


@dataclass(frozen=True, kw_only=True)
class CaptionsConfig(EvaluatorConfig):
    """`data` needs pictures and captions, best several for each. beams, longest (tokens, the end included; None is all
    that the model has room for), length_penalty: of the search, as in `Captioner.generate`."""

    kind: ClassVar[str] = "captions"

    data: SourceConfig
    beams: int = 5
    longest: int | None = None
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        longest = 1 if self.longest is None else self.longest
        check_search(self.beams, longest, max(1, longest), self.length_penalty)

    def build(self) -> "Captions":
        """The evaluator, its data opened."""
        return Captions(self, self.data.build())


class Captions(Evaluator):
    """Yields CIDEr, BLEU-1, BLEU-2, BLEU-3, BLEU-4 and ROUGE-L: 1 is what others call 100 %."""

    def __init__(self, config: CaptionsConfig, source: Source) -> None:
        if missing := {"image", "captions"} - source.provides:
            raise ValueError(f"captions: the data has no {' and no '.join(sorted(missing))}")
        self.title = f"captions/{config.name}" if config.name else "captions"
        self.config, self.source = config, source
        self.indices, self.told, self.ciders = list[int](), list[str](), list[float]()

    def check(self, model: Any) -> None:
        check_tells(model, self.config.longest)

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        self.check(embedder.model)
        self.indices, self.told, true = [], [], list[list[str]]()
        c = self.config
        for found, batch in told(embedder, self.source, c.beams, c.longest, c.length_penalty):
            self.indices += batch["index"].tolist()
            self.told += [text for text, _ in found]
            true += batch["captions"]
        if not true:
            raise ValueError(f"{self.title}: the data has no usable picture with a caption")
        values, self.ciders = official(self.told, true)
        for metric, value in values.items():
            yield f"{self.title}/{metric}", value

    def each(self) -> dict[str, Tensor]:
        return {f"{self.title}/CIDEr": torch.tensor(self.ciders)}

    def panels(self) -> list[Panel]:
        if not self.told:
            return []
        order = sorted(range(len(self.told)), key=lambda i: -self.ciders[i])
        rows = [("Best by CIDEr", order[:SHOWN]), ("Worst by CIDEr", order[SHOWN:][-SHOWN:][::-1])]
        pictures = [(heading, [self.picture(i) for i in some]) for heading, some in rows if some]
        note = "What the model tells, with its CIDEr, above what is true; marked where it is true word for word. "
        note += f"{len(self.told):,} pictures, {self.config.beams} beams."
        return [Gallery(f"{self.title}: told and true", pictures, wide=True, note=note)]

    def picture(self, i: int) -> Picture:
        """One picture with its captions."""
        true = self.source.captions(self.indices[i])
        said, right = self.told[i], words_of(self.told[i]) in map(words_of, true)
        lines = (Line(said or "(nothing)", f"{self.ciders[i]:.2f}", right), *(Line(text) for text in true[:TRUE]))
        return thumbnail(self.source, self.indices[i], lines)


def check_tells(model: Any, longest: int | None = None) -> None:
    """ValueError for a model that tells no captions, or none so long."""
    if not hasattr(model, "generate"):
        raise ValueError(f"this model ({model.config.kind}) tells no captions; train one, `pictura train captions`")
    most = model.config.text.context_length - 1
    if longest is not None and longest > most:
        raise ValueError(f"longest: {longest} tokens; this model says at most {most}, the end included")


def told(
    embedder: Embedder, pictures: Source, beams: int = 5, longest: int | None = None, length_penalty: float = 1.0
) -> Iterator[tuple[list[tuple[str, float]], Batch]]:
    """What a captioner tells of each picture: ((caption, score) of a batch, the batch without its pictures), in order.
    Bad pictures are left out and counted in `embedder.bad`; of somebody's own, `Pictures(images)`, inside
    `embedder.strict()`, none is. ValueError for a model that tells no captions."""
    check_tells(embedder.model, longest)
    assert embedder.tokenizer is not None
    done, e = 0, embedder
    batches = ordered(pictures, e.view, None, e.batch_size, e.workers, bad=e.bad)
    for batch in prefetch(batches, embedder.device):
        with evaluating(embedder.model), torch.inference_mode():
            found: list[Caption] = embedder.model.generate(batch.pop("image"), beams, longest, length_penalty)
        done += len(found)
        yield [(embedder.tokenizer.decode(one.ids), one.score) for one in found], batch
        embedder.tell("pictures", done, len(pictures))


def official(told: Sequence[str], true: Sequence[Sequence[str]]) -> tuple[dict[str, float], list[float]]:
    """A caption told of each of n pictures, and the true ones -> {metric: value}, and each picture's CIDEr.

    By `pycocoevalcap`, after `words_of`. METEOR and SPICE, which want Java, are left out.
    """
    from pycocoevalcap.bleu.bleu import Bleu  # type: ignore[import-untyped]
    from pycocoevalcap.cider.cider import Cider  # type: ignore[import-untyped]
    from pycocoevalcap.rouge.rouge import Rouge  # type: ignore[import-untyped]

    said = {i: [" ".join(words_of(text))] for i, text in enumerate(told)}
    right = {i: [" ".join(words_of(text)) for text in texts] for i, texts in enumerate(true)}
    cider, each = Cider().compute_score(right, said)
    bleu, _ = Bleu(4).compute_score(right, said, verbose=0)
    rouge, _ = Rouge().compute_score(right, said)
    values = {"CIDEr": float(cider)} | {f"BLEU-{n}": float(value) for n, value in enumerate(bleu, 1)}
    return values | {"ROUGE-L": float(rouge)}, [float(value) for value in each]


def words_of(caption: str) -> list[str]:
    """A caption as the official code takes it apart: Stanford's PTBTokenizer 3.4.1, lower case, punctuation removed.

    That one runs in Java. The two agree on every caption of COCO that we have compared (795), contractions, numbers,
    brackets, quotes and common abbreviations among them; they differ on what captions seldom hold: addresses of web
    pages, smileys and tags such as <unk>, sentences without a space between them ("a tie.a dog"), words in quotes or
    slang with an apostrophe at either end ('n', 'tis, '80s), feet and inches, other abbreviations (no. 5).
    """
    text = CLITIC.sub(r" \1", caption.lower().translate(STRAIGHT))
    text = JOINED.sub(lambda found: " ".join(filter(None, found.groups())), text)
    return [BRACKETS.get(word, word) for word in TOKEN.findall(text) if word not in PUNCTUATION]
