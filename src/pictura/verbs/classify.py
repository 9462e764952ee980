"""`pictura classify`."""

import argparse
import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pictura.verbs.common import Answer, bar, check_place, pictures, read_labels, reads_model, say, show

ABOUT = "Classification of pictures: zero-shot with --labels, else by the model's own head."
EXAMPLES = (
    'pictura classify runs/demo/model a.png --labels "red star,blue ring"',
    "pictura classify runs/demo/model kinds/test --labels labels.txt --templates imagenet --top 1 --csv found.csv",
)
MOST = 10  # labels that are shown of a table


def arguments(p: argparse.ArgumentParser) -> None:
    reads_model(p)
    p.add_argument("images", nargs="+", type=Path, help="picture files, or folders of them")
    p.add_argument("--labels", help="comma-separated, or a text file of one label a line (a classifier needs none)")
    p.add_argument(
        "--templates", help="sentences around the labels: a set's name, one with {}, a .yaml or .txt (default: plain)"
    )
    p.add_argument("--classifier", type=Path, help="a file that `pictura fit` has written, in place of --labels")
    p.add_argument("--top", type=int, default=5, help="how many labels to show (default: 5)")
    p.add_argument(
        "--csv",
        type=Path,
        help="write path,rank,label,probability here (no rank with --top 1), and show which came first how often",
    )


def answer(a: argparse.Namespace) -> Answer:
    from pictura.evaluation import ready
    from pictura.evaluation.fitted import read_fitted
    from pictura.evaluation.ready import load
    from pictura.evaluation.watched import watched
    from pictura.output.files import write_text

    if a.top < 1:
        raise ValueError(f"--top: {a.top} shows nothing; give 1 or more")
    if a.csv is not None:
        check_place("--csv", a.csv)
    labels, images = None if a.labels is None else read_labels(a.labels), pictures(a.images)
    if a.csv is not None and a.csv.resolve() in {path.resolve() for path in images}:
        raise ValueError(f"--csv {a.csv}: is one of the pictures; name the file to write, such as found.csv")
    fitted = None if a.classifier is None else read_fitted(a.classifier)
    if fitted is not None and (labels is not None or a.templates is not None):
        option = "--templates" if labels is None else "--labels"
        raise ValueError(f"--classifier: it has labels of its own; leave out {option}")
    model = load(a.model)
    with watched(model.embedder):
        if fitted is None:
            answers = model.classify(images, labels, templates=a.templates or "plain", top=a.top)
        else:
            fitted.check(model.embedder)
            answers = ready.answers(fitted.names, model.embedder.images(images), fitted.probabilities, a.top)
    if a.csv is not None:
        write_text(a.csv, as_csv(images, answers, ranked=a.top > 1))
        often = Counter(next(iter(best)) for best in answers).most_common(MOST)
        show(a, "", [(label, f"{number:,}", bar(number / len(images))) for label, number in often])
        say(f"table: {a.csv}")
    else:
        rows = []
        for path, best in zip(images, answers, strict=True):
            names = [str(path), *[""] * len(best)]
            rows += [(name, label, f"{p:.1%}", bar(p)) for name, (label, p) in zip(names, best.items(), strict=False)]
        show(a, "", rows)
    return {str(path): best for path, best in zip(images, answers, strict=True)}


def as_csv(images: Sequence[Path], answers: Sequence[Mapping[str, float]], *, ranked: bool) -> str:
    """A line for each label of each picture, the most probable first: path,rank,label,probability, ranks from 1; or
    path,label,probability, where each picture has one."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("path", *(("rank",) if ranked else ()), "label", "probability"))
    for path, best in zip(images, answers, strict=True):
        for rank, (label, p) in enumerate(best.items(), 1):
            writer.writerow((path, *((rank,) if ranked else ()), label, p))
    return file.getvalue()
