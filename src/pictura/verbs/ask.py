"""`pictura ask`."""

import argparse
from pathlib import Path

from pictura.verbs.common import Answer, bar, check_place, reads_model, show

ABOUT = "Questions about a picture, answered by a model that was trained on questions."
EXAMPLES = ('pictura ask runs/questions/model a.png "how many red things are there?"',)


def arguments(p: argparse.ArgumentParser) -> None:
    reads_model(p)
    p.add_argument("image", type=Path, help="a picture file")
    p.add_argument("question", nargs="+", help="one question or several, each in quotes")
    p.add_argument("--top", type=int, default=3, help="how many answers to show (default: 3)")
    p.add_argument("--words", type=Path, help="a .png to draw into where each word of the first question is found")


def answer(a: argparse.Namespace) -> Answer:
    from pictura.evaluation.ready import load
    from pictura.evaluation.watched import watched

    if a.top < 1:
        raise ValueError(f"--top: {a.top} shows nothing; give 1 or more")
    if a.words is not None:
        check_place("--words", a.words)
    questions = list(dict.fromkeys(a.question))  # the same one twice is answered once
    model = load(a.model)
    with watched(model.embedder):
        answers = model.ask([a.image] * len(questions), questions)
    out: dict[str, dict[str, float]] = {}
    rows = []
    for question, answer in zip(questions, answers, strict=True):
        best = out[question] = dict(sorted(answer.items(), key=lambda item: -item[1])[: a.top])
        names = [question, *[""] * len(best)]
        rows += [(name, said, f"{p:.1%}", bar(p)) for name, (said, p) in zip(names, best.items(), strict=False)]
    show(a, "", rows)
    if a.words is not None:
        model.point(a.image, questions[0]).save(a.words)
    return out
