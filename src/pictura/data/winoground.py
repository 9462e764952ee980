"""`winoground`: two pictures and two captions of the same words in another order, as published in examples.jsonl, or in
a CSV with the same columns. Winoground, Thrush et al. 2022, arXiv:2204.03162."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from pictura.data.choices import kind_of
from pictura.data.decode import clean_caption
from pictura.data.official import brief, find_picture, picture_folders
from pictura.data.source import (
    PICTURE_SUFFIXES,
    BadSample,
    Example,
    Source,
    SourceConfig,
    Strings,
    existing,
    is_empty,
    read_file,
    shown,
)
from pictura.data.table import whole_records

_BESIDE = (".", "images", "..", "../images", "data/images", "../data/images")


@dataclass(frozen=True, kw_only=True)
class WinogroundConfig(SourceConfig):
    """path: examples.jsonl; each row has `image_0`, `image_1`, `caption_0`, `caption_1`, and perhaps `collapsed_tag`.
    images: the folder of the pictures (ex_0_img_0.png, …, which the rows name without .png), or several; if none,
        looked for beside the file.
    """

    kind: ClassVar[str] = "winoground"
    path: Path
    images: Path | list[Path] | None = None

    def build(self) -> "Winoground":
        return Winoground(self)


class Winoground(Source):
    """Two examples for each row: `image`, the first and then the second, both with the `choices` [caption_0,
    caption_1], of which that at `answer` is its own; `pair`, the number of the row among those that can be used; and
    where rows have a tag (Object, Relation, Both) that as `choice_kind`."""

    provides = frozenset({"image", "choices", "answer", "pair", "choice_kind"})

    def __init__(self, config: WinogroundConfig) -> None:
        path = existing(config.path, "file")
        bad: list[BadSample] = []
        rows: list[tuple[list[str], list[str], str]] = []
        for where, cells in whole_records(path, bad):
            try:
                rows.append(_row(cells, where))
            except BadSample as sample:
                bad.append(sample)
        if not rows:
            why = f"for example {bad[0]}" if bad else "it is empty"
            raise ValueError(f"{path}: no usable row; Winoground has one JSON object a line; {why}")
        self.bad = bad
        self._pictures = Strings(picture for pictures, _, _ in rows for picture in pictures)
        self._captions = Strings(caption for _, captions, _ in rows for caption in captions)
        self._tags = Strings(tag for _, _, tag in rows)
        if not all(tag for _, _, tag in rows):
            self.provides -= {"choice_kind"}
        names = [_spellings(picture) for pictures, _, _ in rows for picture in pictures]
        self._folders = picture_folders(path, config.images, _BESIDE, ("images",), names)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Example:
        row, answer = divmod(range(len(self))[index], 2)
        name = self._pictures[2 * row + answer]
        path = find_picture(self._folders, _spellings(name), name)
        example: dict[str, Any] = {"key": shown(path), "image": read_file(path, shown(path))}
        example |= {"choices": self._captions[2 * row : 2 * row + 2], "answer": answer, "pair": row}
        if "choice_kind" in self.provides:
            example["choice_kind"] = self._tags[row]
        return cast(Example, example)

    def captions(self, index: int) -> list[str]:
        """Its own caption, so that a tokenizer can be trained on it."""
        return [self._captions[index]]


def _row(cells: dict[str, Any], where: str) -> tuple[list[str], list[str], str]:
    """A row's pictures, captions and tag."""
    pictures = [cells.get(f"image_{i}") for i in (0, 1)]
    captions = [cells.get(f"caption_{i}") for i in (0, 1)]
    names = [picture.strip() for picture in pictures if isinstance(picture, str) and picture.strip()]
    if len(names) < 2:
        raise BadSample(where, "image_0 and image_1 do not name two pictures")
    if outside := next(filter(os.path.isabs, names), None):
        raise BadSample(where, f"{brief(outside)} leads outside the pictures' folder")
    if strange := [text for text in captions if not isinstance(text, str)]:
        raise BadSample(where, f"caption_0 and caption_1: {brief(strange[0])} is not a sentence")
    texts = [clean_caption(cast(str, text), where) for text in captions]
    if texts[0] == texts[1] or names[0] == names[1]:
        raise BadSample(where, f"both {'captions' if texts[0] == texts[1] else 'pictures'} are the same")
    tag = cells.get("collapsed_tag")
    return names, texts, "" if is_empty(tag) else kind_of(tag, where)


def _spellings(name: str) -> list[str]:
    """ex_0_img_0.png, where it is called ex_0_img_0."""
    return [name] if name.rpartition(".")[2].lower() in PICTURE_SUFFIXES else [f"{name}.png", name]
