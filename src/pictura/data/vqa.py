"""`vqa`: questions about pictures with ten people's answers, in the official files of VQA and VQAv2 (Goyal et al. 2017,
arXiv:1612.00837; visualqa.org)."""

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from pictura.data.decode import clean_caption
from pictura.data.official import COCO_FOLDERS, brief, entries, files, find_picture, picture_folders, read_list
from pictura.data.source import BadSample, Example, Source, SourceConfig, Strings, read_file, shown
from pictura.data.vqa_answers import normalised, soft_scores, vocabulary

_BESIDE = (".", "images", "..", "../images", "Images/mscoco", "../Images/mscoco")
_SUBTYPE = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, kw_only=True)
class VqaConfig(SourceConfig):
    """questions, annotations: v2_OpenEnded_mscoco_train2014_questions.json and v2_mscoco_train2014_annotations.json, or
        several of each (a list, or a pattern such as v2_mscoco_{train,val}2014_annotations.json). Without annotations,
        as for the test split, there are only pictures and questions.
    images: the folder of the pictures (COCO_train2014_000000123456.jpg, or COCO's names of 2017, 000000123456.jpg), or
        the one above them; several may be given; if none, looked for beside the questions.
    """

    kind: ClassVar[str] = "vqa"
    questions: str | list[str]
    annotations: str | list[str] | None = None
    images: Path | list[Path] | None = None

    def build(self) -> "Vqa":
        return Vqa(self)


class Vqa(Source):
    """One example per question: `image`, `question`, `question_id`, and where there are annotations `answers`, cleaned,
    each with its soft score in (0, 1] (`vqa_answers.soft_scores`), and `question_kind`: yes/no, number or other.

    A question that is empty or has no annotation, and an annotation without a question, are in `bad`.
    """

    provides = frozenset({"image", "question", "question_id", "answers", "question_kind"})

    def __init__(self, config: VqaConfig) -> None:
        bad: list[BadSample] = []
        asked = _Questions(files(config.questions), bad)
        self._told = None if config.annotations is None else _Answers(files(config.annotations), asked.place, bad)
        if self._told is None:
            self.provides -= {"answers", "question_kind"}
            kept = np.arange(len(asked.texts))
        else:
            row = self._told.rows(len(asked.texts))
            left_out = (asked.ids[at] for at in np.flatnonzero(row < 0))
            bad += [BadSample(f"question {number}", "no usable annotation") for number in left_out]
            kept = np.flatnonzero(row >= 0)
            self._row = row[kept]
        if not len(kept):
            hint = "; are the annotations those of the same questions?" if config.annotations else ""
            why = [*bad, "there are none"][0]
            raise ValueError(f"questions: none of {config.questions} can be used; for example {why}{hint}")
        self.bad = bad
        self._texts = Strings(asked.texts[at] for at in kept)
        self._ids, self._pictures, self._part = (np.array(of)[kept] for of in (asked.ids, asked.pictures, asked.parts))
        self._subtypes = asked.subtypes
        self._folders = [self._look(part, path, config) for part, path in enumerate(asked.paths)]

    def _look(self, part: int, path: Path, config: VqaConfig) -> list[str]:
        """The folders of the pictures of one of the files, each of which may be of another part of COCO."""
        subtype, pictures = self._subtypes[part], np.unique(self._pictures[self._part == part]).tolist()
        inside = list(dict.fromkeys([*_subtypes(subtype), *COCO_FOLDERS]))
        names = [_spellings(subtype, picture) for picture in pictures]
        return picture_folders(path, config.images, _BESIDE, inside, names) if names else []

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        number, part = int(self._ids[index]), int(self._part[index])
        spellings = _spellings(self._subtypes[part], int(self._pictures[index]))
        path = find_picture(self._folders[part], spellings, f"question {number}")
        key = f"{shown(path)}, question {number}"
        example = {"key": key, "image": read_file(path, key), "question": self._texts[index], "question_id": number}
        if self._told is not None:
            row = int(self._row[index])
            example |= {"answers": soft_scores(self._told.cleaned(row)), "question_kind": self._told.kind(row)}
        return cast(Example, example)

    def captions(self, index: int) -> list[str]:
        """The question, so that a tokenizer can be trained on it."""
        return [self._texts[index]]

    def humans(self, index: int) -> list[str]:
        """What each person answered, as they wrote it, for `vqa_answers.accuracy`."""
        return self._answers().said(int(self._row[range(len(self))[index]]))

    def all_answers(self) -> Iterator[dict[str, float]]:
        """The `answers` of every example in order, without reading pictures, for `vqa_answers.vocabulary`."""
        told = self._answers()
        words = list(told.clean)
        for row in self._row.tolist():
            yield soft_scores(words[code] for code in told.codes(row))

    def answers(self, least: int) -> tuple[str, ...]:
        return vocabulary(self.all_answers(), least)

    def _answers(self) -> "_Answers":
        if self._told is None:
            raise ValueError("annotations: not given, so that there are no answers")
        return self._told


class _Questions:
    """The questions of several files, column by column. `place`: where each is, by its id."""

    def __init__(self, paths: list[Path], bad: list[BadSample]) -> None:
        self.paths, self.subtypes = paths, [""] * len(paths)
        self.texts: list[str] = []
        self.ids, self.pictures, self.parts = array("q"), array("q"), array("i")
        self.place: dict[int, int] = {}
        for part, path in enumerate(paths):
            content = read_list(path, "questions", "VQA's questions")
            self.subtypes[part] = _subtype(content, path)
            for where, entry in entries(path, "questions", content, bad):
                try:
                    self._add(entry, where, part)
                except BadSample as sample:
                    bad.append(sample)

    def _add(self, entry: dict[str, Any], where: str, part: int) -> None:
        number, picture, text = (
            _whole(entry, "question_id", where),
            _whole(entry, "image_id", where),
            entry.get("question"),
        )
        if number in self.place:
            raise BadSample(where, f"question_id {number} is there already")
        text = clean_caption(text if isinstance(text, str) else "", where)
        self.place[number] = len(self.texts)
        self.texts.append(text)
        self.ids.append(number)
        self.pictures.append(picture)
        self.parts.append(part)


class _Answers:
    """The answers of several files: each different one once, as written and cleaned; and their codes, row by row."""

    def __init__(self, paths: list[Path], place: dict[int, int], bad: list[BadSample]) -> None:
        codes: dict[str, int] = {}
        clean: list[str] = []
        kinds: dict[str, int] = {}
        said, ends, row_kinds, places = array("i"), array("q", [0]), array("i"), array("q")
        taken: set[int] = set()
        for path in paths:
            content = read_list(path, "annotations", "VQA's annotations", _Shrink())
            for where, entry in entries(path, "annotations", content, bad):
                try:
                    number = _whole(entry, "question_id", where)
                    if number not in place:
                        raise BadSample(where, f"there is no question {number}")
                    if number in taken:
                        raise BadSample(where, f"question {number} has an annotation already")
                    row = [_code(answer, codes, clean, where) for answer in _list(entry, where)]
                    if not any(clean[code] for code in row):
                        raise BadSample(where, "no usable answer")
                    row_kinds.append(kinds.setdefault(_kind(entry, where), len(kinds)))
                except BadSample as sample:
                    bad.append(sample)
                    continue
                taken.add(number)
                places.append(place[number])
                said.extend(row)
                ends.append(len(said))
        self._written, self.clean, self._kinds = Strings(codes), Strings(clean), tuple(kinds)
        self._said, self._ends, self._kind, self._places = map(np.array, (said, ends, row_kinds, places))

    def rows(self, questions: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Which row answers each question, -1 for none."""
        row = np.full(questions, -1, dtype=np.int64)
        row[self._places.astype(np.int64)] = np.arange(len(self._places))
        return row

    def codes(self, row: int) -> list[int]:
        codes: list[int] = self._said[self._ends[row] : self._ends[row + 1]].tolist()
        return codes

    def said(self, row: int) -> list[str]:
        return [self._written[code] for code in self.codes(row)]

    def cleaned(self, row: int) -> list[str]:
        return [self.clean[code] for code in self.codes(row)]

    def kind(self, row: int) -> str:
        return self._kinds[int(self._kind[row])]


class _Shrink:
    """Of an answer with its number and confidence, the answer, each different one held once."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def __call__(self, part: dict[str, Any]) -> Any:
        if "answer" not in part or "question_id" in part:
            return part
        answer = part["answer"]
        return self._seen.setdefault(answer, answer) if isinstance(answer, str) else part


def _subtype(content: dict[str, Any], path: Path) -> str:
    """train2014, val2014, test2015 or test-dev2015, which is in the pictures' names; empty if the file does not say."""
    subtype = content.get("data_subtype", "")
    if subtype != "" and not (isinstance(subtype, str) and _SUBTYPE.fullmatch(subtype)):
        raise ValueError(f"{path}: data_subtype {brief(subtype)} is not a name such as train2014")
    return str(subtype)


def _subtypes(subtype: str) -> list[str]:
    """The part of COCO that pictures may be named after: those of test-dev2015 are some of test2015's."""
    return list(dict.fromkeys(name for name in (subtype, re.sub("-[a-z]+", "", subtype)) if name))


def _spellings(subtype: str, picture: int) -> list[str]:
    return [*(f"COCO_{name}_{picture:012d}.jpg" for name in _subtypes(subtype)), f"{picture:012d}.jpg"]


def _whole(entry: dict[str, Any], name: str, where: str) -> int:
    value = entry.get(name)
    if type(value) is not int or not 0 <= value < 2**63:
        raise BadSample(where, f"{name} {brief(value)} is not a whole number")
    return value


def _list(entry: dict[str, Any], where: str) -> list[Any]:
    answers = entry.get("answers")
    if not isinstance(answers, list):
        raise BadSample(where, "has no list of answers")
    return answers


def _code(answer: Any, codes: dict[str, int], clean: list[str], where: str) -> int:
    """The number of an answer as written, which is taken up when it is new."""
    if not isinstance(answer, str):
        raise BadSample(where, "an answer is not text")
    if answer not in codes:
        text = clean_caption(answer, where) if answer.strip() else ""
        codes[answer] = len(clean)
        clean.append(normalised(text))
    return codes[answer]


def _kind(entry: dict[str, Any], where: str) -> str:
    kind = entry.get("answer_type")
    if not isinstance(kind, str) or not kind or len(kind) > 64:
        raise BadSample(where, "no answer_type such as yes/no, number or other")
    return kind
