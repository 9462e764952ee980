"""What a ViLT learns on drawn scenes on two cores, and what each part of its pre-training is worth.

    .venv/bin/python -m benchmarks.joint [ARM …]     train what is missing
    .venv/bin/python -m benchmarks.joint recipes     the recipes as they are, timed: on a machine that does nothing else
    .venv/bin/python -m benchmarks.joint --write     the tables in docs/vilt.md

Each arm pre-trains (recipe `vilt`, with other objectives), answers questions by the recipe `questions`, and is measured
on scenes that it has not seen. The baselines: the answer that is most common for a kind of question, and for these very
words; the same model without its pictures, and without its questions.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np

from pictura.data.scenes import Scenes, ScenesConfig
from pictura.data.source import Example

from .trained import DOCS, Run, kept, train_missing, write_between

NAME = "joint"
KINDS = ("count", "exist", "colour", "shape", "relation")
WORDS, MATCHING = "objectives.words", "objectives.matching"
FREEZE = "training.freeze=[pooler]"  # which masked words alone do not use

PRETRAINED: dict[str, list[str] | None] = {  # arm -> what it changes in the recipe `vilt`; None: no pre-training
    "words, matching, alignment": [],
    "words, matching": [f"{MATCHING}.alignment=0"],
    "words, matching, patches": [
        f"{MATCHING}.alignment=0", "objectives.patches={kind: masked_patches}",
        "model.tasks=[words, matching, patches]",
    ],
    "words": [f"{MATCHING}=null", "evaluation.matching=null", "model.tasks=[words]", FREEZE],
    "words, by pieces": [
        f"{MATCHING}=null", "evaluation.matching=null", "model.tasks=[words]", FREEZE, f"{WORDS}.whole=false",
    ],
    "matching": [f"{WORDS}=null", "evaluation.words=null", "model.tasks=[matching]"],
    "none": None,
}  # fmt: skip


def without(part: str) -> list[str]:
    """What the recipe `questions` has as data, and what it is measured on, but for one part."""
    scenes = f"kind: without, part: {part}, objects: [1, 3], gives: [image, question]"
    return [f"data={{{scenes}}}", f"evaluation.questions.data={{{scenes}, split: fresh, count: 2000, seed: 1}}"]


DROPOUT = "model.dropout=0.1"
TUNED: dict[str, list[str]] = {  # arm -> what it changes in the recipe `questions`, after words, matching, alignment
    "dropout": [DROPOUT],
    "R-Drop": [DROPOUT, "objectives.questions={kind: rdrop, alpha: 1.0, of: {kind: questions}}"],
    "text alone": without("image"),
    "picture alone": without("question"),
}
NEW_WORDS = ["tokenizer={kind: wordpiece, vocab_size: 240, max_captions: 20000}"]  # for what has not been pre-trained
FULL = "words, matching, alignment"
RECIPES = ("demo", "vilt", "questions")  # one after the other, each beginning with what the one before has left
ARMS = [
    *(f"pre-training: {arm}" for arm in PRETRAINED), *(f"questions: {arm}" for arm in TUNED), "statements", "recipes",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class WithoutConfig(ScenesConfig):
    """Scenes without what a baseline must not see: their pictures are grey, or their questions empty."""

    kind: ClassVar[str] = "without"

    part: Literal["image", "question"]

    def build(self) -> Without:
        return Without(self)


class Without(Scenes):
    """See `WithoutConfig`."""

    config: WithoutConfig

    def __getitem__(self, index: int) -> Example:
        example: Any = super().__getitem__(index)
        part = self.config.part
        example[part] = "" if part == "question" else np.full_like(example[part], 128)
        return cast(Example, example)


def runs(seeds: list[int], arms: list[str]) -> Iterator[Run]:
    """Every run that there is to make, as the facts that name it."""
    for seed in seeds:
        for arm in ARMS:
            if not arms or any(arm.startswith(wanted) for wanted in arms):
                yield {"arm": arm, "seed": seed}


def train(run: Run, folder: Path, tower: Path) -> Run:
    """What one run reached on scenes it has not seen; the pre-trained models stay in `folder`."""
    from pictura.run import read_recipe, train

    stage, _, arm = run["arm"].partition(": ")
    if stage == "recipes":
        return in_turn(run["seed"], folder / f"recipes {run['seed']}")
    found: dict[str, float] = {}

    def trained(recipe: str, name: str, initial: Path, *changes: str) -> tuple[Path, float]:
        """The model, and how long it took; kept where it is there already."""
        into = folder / f"{name} {run['seed']}"
        if not (into / "seconds").exists():  # written last
            shutil.rmtree(into, ignore_errors=True)
            words = [f"seed={run['seed']}", f"initial={initial}", "training.save_every=1000000", *changes]
            began = time.perf_counter()
            train(read_recipe(recipe, words), into, say=lambda _: None)
            (into / "seconds").write_text(str(time.perf_counter() - began))
        results = json.loads((into / "results.json").read_text())
        found.update({k: v for k, v in results.items() if k.startswith(("held_out/", "questions/", "statements/"))})
        return into / "model", float((into / "seconds").read_text())

    changes = PRETRAINED.get(arm, []) if stage == "pre-training" else []
    model, before = tower, 0.0
    if changes is not None:
        model, before = trained("vilt", arm if stage == "pre-training" else FULL, tower, *changes)
    new = NEW_WORDS if changes is None else []
    if stage == "statements":
        _, after = trained("statements", "statements", model)
    else:
        _, after = trained("questions", run["arm"].replace(":", ""), model, *new, *TUNED.get(arm, []))
    told = "statements/accuracy" if stage == "statements" else "questions/accuracy"
    return {"accuracy": found[told], "metrics": found, "minutes": [round(before / 60, 2), round(after / 60, 2)]}


def in_turn(seed: int, folder: Path) -> Run:
    """`RECIPES` from the beginning to the end, and how long each took."""
    from pictura.run import read_recipe, train

    shutil.rmtree(folder, ignore_errors=True)
    minutes, results, changes = [], dict[str, float](), list[str]()
    for name in RECIPES:
        began = time.perf_counter()
        results = train(read_recipe(name, [f"seed={seed}", *changes]), folder / name, say=lambda _: None)
        minutes.append(round((time.perf_counter() - began) / 60, 2))
        changes = [f"initial={folder / name / 'model'}"]
    metrics = {name: value for name, value in results.items() if name.startswith("questions/")}
    return {"accuracy": metrics["questions/accuracy"], "metrics": metrics, "minutes": minutes}


def prior(questions: int = 20_000) -> dict[str, dict[str, float]]:
    """What can be known without looking: {baseline: {kind: accuracy}} on the scenes that `questions` asks about, by the
    commonest answer to a kind of question, and to these very words, among so many questions of the training scenes."""
    from pictura.run import read_recipe

    recipe = read_recipe("questions")
    given: list[Any] = [recipe.data, recipe.evaluation["questions"].data]  # type: ignore[attr-defined]
    taught, asked = (replace(data, gives=("question",)).build() for data in given)  # nothing is drawn
    common: dict[str, Counter[str]] = defaultdict(Counter)
    for i in range(questions):
        one = taught[i]
        for key in (one["question_kind"], one["question"]):
            common[key][next(iter(one["answers"]))] += 1
    scores: dict[str, dict[str, list[bool]]] = {"kind": defaultdict(list), "words": defaultdict(list)}
    for i in range(len(asked)):
        one = asked[i]
        kind, right = one["question_kind"], next(iter(one["answers"]))
        by_kind = common[kind].most_common(1)[0][0]
        by_words = common[one["question"]].most_common(1)[0][0] if one["question"] in common else by_kind
        for name, said in (("kind", by_kind), ("words", by_words)):
            scores[name][kind].append(said == right)
            scores[name]["accuracy"].append(said == right)
    return {name: {k: sum(v) / len(v) for k, v in found.items()} for name, found in scores.items()}


def percent(values: list[float]) -> str:
    """The mean, never rounded up; nothing of none."""
    return f"{math.floor(1e3 * statistics.fmean(values) + 1e-9) / 10:.1f}" if values else ""


def row(name: str, found: list[dict[str, float]], keys: list[str]) -> str:
    cells = [percent([one[key] for one in found if key in one]) for key in keys]
    return f"| {name} | " + " | ".join(cells) + " |"


def table(done: list[Run]) -> str:
    """Baselines and arms, means over seeds, in per cent."""
    of = {arm: [run for run in done if run["arm"] == arm] for arm in ARMS}
    asked = [f"questions/{kind}" for kind in ("accuracy", *KINDS)]
    held = ["held_out/masked_words/hits", "held_out/matching/hits"]
    head = "| questions answered, % | all | " + " | ".join(KINDS) + " |"
    lines = [head, "| --- |" + " ---: |" * (1 + len(KINDS))]
    for name, found in prior().items():
        says = "the commonest answer to this kind of question" if name == "kind" else "the commonest to these words"
        lines.append(row(says, [{f"questions/{k}": v for k, v in found.items()}], asked))
    named = {"text alone": "the ViLT, its pictures grey", "picture alone": "the ViLT, its questions empty"}
    for arm, says in (("questions: " + k, v) for k, v in named.items()):
        lines.append(row(says, [run["metrics"] for run in of[arm]], asked))
    lines.append(row("**the ViLT**", [run["metrics"] for run in of[f"pre-training: {FULL}"]], asked))
    for arm in ("dropout", "R-Drop"):
        lines.append(row(f"with {arm}", [run["metrics"] for run in of[f"questions: {arm}"]], asked))
    lines += ["", "| pre-trained by | hidden words guessed | matching told | questions answered | seeds |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    for arm in PRETRAINED:
        some = of[f"pre-training: {arm}"]
        if some:
            cells = row(arm, [run["metrics"] for run in some], [*held, "questions/accuracy"])
            lines.append(f"{cells} {len(some)} |")
    if some := of["statements"]:
        values = [run["metrics"] for run in some]
        told = [percent([one[f"statements/{k}"] for one in values]) for k in ("accuracy", "true", "false")]
        lines += [
            "",
            f"Statements about two scenes: {told[0]} % told right ({told[1]} of the true, {told[2]} of the false).",
        ]
    for run in of["recipes"]:
        took = [math.ceil(10 * part) / 10 for part in run["minutes"]]
        told = percent([run["accuracy"]])
        parts = " + ".join(f"{part:.1f}" for part in took)
        lines += [
            "",
            f"The recipes {', '.join(f'`{name}`' for name in RECIPES)} one after the other, on both cores: {parts} = "
            f"{sum(took):.1f} minutes, and {told} % of the questions answered.",
        ]
    last = max(done, key=lambda run: run["date"])
    return "\n".join([*lines, "", f"{last['machine']}, {last['date'][:10]}."])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.joint", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("arms", nargs="*", metavar="ARM", help="how the names of arms begin (default: all)")
    parser.add_argument("--tower", type=Path, default=Path("runs/demo/model"), help="what `pictura demo` left")
    parser.add_argument("--folder", type=Path, default=Path("runs/joint"), help="for the models (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--write", action="store_true", help="write the tables of docs/vilt.md from the runs kept")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no run after so many seconds")
    arguments = parser.parse_args()
    if arguments.write:
        write_between(DOCS / "vilt.md", "joint", table(kept(NAME)))
        return 0
    make = partial(train, folder=arguments.folder, tower=arguments.tower)
    train_missing(NAME, runs(arguments.seeds, arguments.arms), make, "accuracy", arguments.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
