"""Pictures and texts to unit vectors, or to scores, in bulk: what every evaluator and the `embed` and `classify` verbs
stand on."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn

from pictura.data.batches import BadSamples, Batch, ordered, prefetch
from pictura.data.fit import FitConfig
from pictura.data.source import BadSample, Example, Source
from pictura.data.text import Tokenizer
from pictura.data.views import CropConfig, View
from pictura.evaluation.reading import What, reader

Picture = Path | str | bytes | Image.Image | npt.NDArray[np.uint8]
Progress = Callable[[str, int, int], None]  # what ("pictures", "texts"), done, of how many
Change = Callable[[Tensor, Batch], Tensor]
Read = TypeVar("Read")
TOKENIZED_AT_ONCE = 16384  # texts; bounds the memory that token ids take


class Encoder(Protocol):
    """What an `Embedder` needs of a model: features of pictures. A CLIP reads texts too, a classifier gives scores."""

    config: Any  # image.image_size, resize, interpolation, crop; text.context_length; class_names

    def encode_image(self, image: Tensor) -> Tensor: ...


class Pictures(Source):
    """Pictures somebody has in hand: paths, encoded bytes, PIL images or uint8 RGB arrays [y x c]."""

    provides = frozenset({"image"})

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Example:
        picture = self.pictures[index]
        if isinstance(picture, Path | str):
            try:
                return Example(key=str(picture), image=Path(picture).read_bytes())
            except OSError as error:
                raise BadSample(str(picture), error.strerror or str(error)) from None
        if isinstance(picture, Image.Image):
            picture = encoded(picture)
        return Example(key=f"picture {index}", image=picture)


class NoneBad(BadSamples):
    """For somebody's own list of pictures, where none may be left out."""

    def add(self, key: str, reason: str, *, of_all: bool = False) -> None:
        raise ValueError(f"{key}: {reason}")


class Asked(Pictures):
    """Pictures with a question each."""

    provides = frozenset({"image", "question"})

    def __init__(self, pictures: Sequence[Picture], questions: Sequence[str]) -> None:
        if len(pictures) != len(questions):
            raise ValueError(f"{len(pictures)} pictures and {len(questions)} questions: each picture needs its own")
        super().__init__(pictures)
        self.questions = questions

    def __getitem__(self, index: int) -> Example:
        asked: dict[str, Any] = {"question": self.questions[index]}
        return cast(Example, super().__getitem__(index) | asked)


def encoded(image: Image.Image) -> bytes | npt.NDArray[np.uint8]:
    """A PIL image in a form that `decode` takes, so that its mode and orientation follow the rules for files."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image)
    file = io.BytesIO()
    (image.convert("RGBA") if image.has_transparency_data else image).save(file, "TIFF")  # holds every other mode
    return file.getvalue()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and every module's own mode again after: a locked tower stays as its owner left it."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


class Embedder:
    """A model and its tokenizer, ready to embed. The model decides its precision; results are float32 on the CPU.

    `batch_size` pictures at a time, by default 256, and on a CPU 64: of more, the tensors outgrow its caches and what
    the allocator keeps at hand. Texts come in batches of up to `batch_size * 32` tokens, so that short ones are many.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer | None,
        *,
        device: torch.device | str = "cpu",
        batch_size: int | None = None,
        workers: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self.model: Any = model  # an Encoder; nn.Module hides its methods' types
        self.tokenizer = tokenizer
        self.device = torch.device(device)
        self.batch_size = batch_size or (64 if self.device.type == "cpu" else 256)
        self.workers = workers
        self.progress = progress
        self.bad = BadSamples()

    @property
    def view(self) -> View:
        """How the model wants its pictures prepared: kept in its configuration, never guessed."""
        c = self.model.config
        size = c.image.image_size
        if c.resize == "fit":
            patch = getattr(c.image, "patch_size", 1)
            return FitConfig(image_size=size, longest=getattr(c, "limit", c.longest), patch_size=patch).build()
        return CropConfig(image_size=size, resize=c.resize, interpolation=c.interpolation, crop=c.crop).build()

    @property
    def scale(self) -> float:
        """What cosines are multiplied by before a softmax: the learned inverse temperature."""
        return float(self.model.logit_scale.detach().exp())

    def walk(
        self, source: Source, of: What = "features", change: Change | None = None
    ) -> Iterator[tuple[Tensor, Batch]]:
        """source -> (what is asked [b e], batch without its pictures), in order, on the CPU.

        Bad examples are left out and counted in `bad`; `batch["index"]` says which are there. `change` makes of a batch
        and its pictures, uint8 [b 3 y x], the pictures that are looked at instead.
        """
        for (rows,), batch in self._walk(source, self.bad, (of,), change):
            yield rows, batch

    def _walk(
        self, source: Source, bad: BadSamples, what: Sequence[What], change: Change | None = None
    ) -> Iterator[tuple[list[Tensor], Batch]]:
        done = 0
        waiting: tuple[list[Tensor], Batch, torch.cuda.Event | None] | None = None
        read = reader(self.model, what)
        batches = ordered(source, self.view, None, self.batch_size, self.workers, bad=bad)
        for batch in prefetch(batches, self.device):
            done += len(batch["index"])
            image = batch.pop("image")
            rows = self._run(read, image if change is None else change(image, batch))
            batch = {key: fetched(value) if isinstance(value, Tensor) else value for key, value in batch.items()}
            mark = None if self.device.type != "cuda" else torch.cuda.current_stream(self.device).record_event()
            if waiting is not None:  # one behind, so that the device has work while somebody looks at a result
                yield arrived(*waiting)
            waiting = rows, batch, mark
            self.tell("pictures", done, len(source))
        if waiting is not None:
            yield arrived(*waiting)

    def asked(self, source: Source, read: Callable[[Any, Batch], Tensor]) -> Iterator[tuple[Tensor, Batch]]:
        """What `read(model, batch)` makes of each batch of `source`, its pictures and texts as the model wants them:
        (rows [b …] on the CPU, the batch), in order. Bad examples are left out and counted in `bad`."""
        done = 0
        batches = ordered(source, self.view, self.tokenizer, self.batch_size, self.workers, bad=self.bad)
        for batch in prefetch(batches, self.device):
            done += len(batch["index"])
            with evaluating(self.model), torch.inference_mode():
                rows = read(self.model, batch).float().cpu()
            yield rows, batch
            self.tell("examples", done, len(source))

    def answers(self, asked: Asked) -> Tensor:
        """Pictures with questions -> [n k], the scores of each answer. ValueError for a picture that is bad."""
        read = self.asked(asked, lambda m, b: m.answer(b["image"], b["question"]))
        with self.strict():
            rows = [rows for rows, _ in read]
        return torch.cat(rows) if rows else torch.empty(0, len(self.model.config.answers))

    @contextmanager
    def strict(self) -> Iterator[None]:
        """Inside, the first picture that is bad is a ValueError."""
        bad, self.bad = self.bad, NoneBad()
        try:
            yield
        finally:
            self.bad = bad

    def images(self, pictures: Source | Sequence[Picture] | Path | str, of: What = "features") -> Tensor:
        """n pictures -> [n e]. Of a source, bad ones are left out; of a list, a bad one is a ValueError naming it."""
        return self.layers(pictures, (of,))[of]

    def layers(self, pictures: Source | Sequence[Picture] | Path | str, what: Sequence[What]) -> dict[What, Tensor]:
        """As `images`, but several things in one pass: {3: [n f], -1: [n e]}, say."""
        bad = self.bad if isinstance(pictures, Source) else BadSamples()
        given = [pictures] if isinstance(pictures, Path | str) else pictures
        source = given if isinstance(given, Source) else Pictures(given)
        parts = []
        for rows, _ in self._walk(source, bad, what):
            if source is not pictures and len(bad):
                break
            parts.append(rows)
        if source is not pictures and len(bad):
            key, reason = bad.rows()[0]
            raise ValueError(f"{key}: {reason}")
        if not parts:  # as wide as they would be
            size = self.model.config.image.image_size
            black = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=self.device)
            parts = [[rows[:0] for rows in self._run(reader(self.model, what), black)]]
        return {of: torch.cat(some) for of, some in zip(what, zip(*parts, strict=True), strict=True)}

    def texts(self, texts: Sequence[str] | str) -> Tensor:
        """n texts -> [n e]. The same text twice is encoded once, so that its vectors are equal bit for bit."""
        if self.tokenizer is None:
            raise ValueError("this model has no tokenizer, so it cannot read texts")
        if not hasattr(self.model, "encode_text"):
            raise ValueError(f"this model ({self.model.config.kind}) does not read a text alone, only beside a picture")
        texts = [texts] if isinstance(texts, str) else texts
        distinct = dict.fromkeys(texts)
        # Characters tell roughly how many tokens, without everybody's tokens in memory at once.
        order = sorted(distinct, key=len)
        rows: dict[str, int] = {}
        parts: list[Tensor] = []
        for begin in range(0, len(order), TOKENIZED_AT_ONCE):
            some = sorted(order[begin : begin + TOKENIZED_AT_ONCE])  # those side by side that begin alike
            ids = self.tokenizer(some, self.model.config.text.context_length)
            lengths = (ids == self.tokenizer.end).int().argmax(1) + 1
            by_length = lengths.argsort(stable=True)
            for batch in by_token_budget(lengths[by_length].tolist(), self.batch_size * 32):
                members = by_length[batch]
                longest = int(lengths[members[-1]])
                parts += self._run(self._read_text, ids[members, :longest].to(self.device))
                for member in members.tolist():
                    rows[some[member]] = len(rows)
                self.tell("texts", len(rows), len(order))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        everything = torch.cat(parts) if parts else torch.empty(0, self.model.config.embed_dim)
        return everything[torch.tensor([rows[text] for text in texts], dtype=torch.long)]

    def _read_text(self, ids: Tensor) -> list[Tensor]:
        return [F.normalize(self.model.encode_text(ids).float(), dim=-1)]

    def _run(self, read: Callable[[Tensor], list[Tensor]], inputs: Tensor) -> list[Tensor]:
        """inputs: [b …] on the device -> what is read, float32 on the CPU, perhaps still on its way."""
        with evaluating(self.model), torch.inference_mode():
            return [fetched(rows) for rows in read(inputs)]

    def tell(self, what: str, done: int, total: int) -> None:
        """Show progress, where somebody looks."""
        if self.progress is not None:
            self.progress(what, done, total)


def fetched(tensor: Tensor) -> Tensor:
    """On the CPU, or on its way there."""
    return tensor.to("cpu", non_blocking=tensor.is_cuda)


def arrived(rows: list[Tensor], batch: Batch, mark: torch.cuda.Event | None) -> tuple[list[Tensor], Batch]:
    """What was read and its batch, once the device has passed the mark behind them."""
    if mark is not None:
        mark.synchronize()
    return rows, batch


def by_token_budget(lengths: Sequence[int], budget: int) -> Iterator[slice]:
    """Rising lengths -> slices whose rows × longest stay within the budget; at least one row each."""
    begin = 0
    for end, length in enumerate(lengths):
        if end > begin and (end + 1 - begin) * length > budget:
            yield slice(begin, end)
            begin = end
    if begin < len(lengths):
        yield slice(begin, len(lengths))
