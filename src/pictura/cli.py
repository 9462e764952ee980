"""The command `pictura`: one verb each, `--json` on all that measure, and a `-h` whose example runs.

Results go to stdout, progress and messages to stderr; with `--json` stdout has one JSON object and nothing else.
Exit codes: 0 done; 2 a mistake that the user can mend, told in one line; 1 a bug of ours, with its traceback; 130 and
143 stopped by Ctrl-C and SIGTERM. Verbs import what they need when they run, so `-h` is immediate.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pictura import __version__
from pictura.training.signals import Stopped

Answer = Mapping[str, Any]

ENVIRONMENT = {"THP_MEM_ALLOC_ENABLE": "1"}  # torch's large tensors in pages of 2 MiB, which are cheaper to come by


def command() -> NoReturn:
    """`pictura`, as a shell or `torchrun` starts it."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    code = main()
    if "RANK" in os.environ:
        from pictura.distributed.ranks import leave

        leave(code)
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit code."""
    arguments = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        answer = arguments.verb(arguments)
    except (ValueError, OSError, ArithmeticError) as error:
        if not mendable(error):
            raise
        from pictura.config.messages import explain

        return complain(arguments, explain(error), 2)
    except Stopped as stopped:
        return complain(arguments, str(stopped), stopped.code) if is_main() else stopped.code
    except KeyboardInterrupt:
        return complain(arguments, "interrupted", 130)
    if arguments.json and is_main():
        sys.stdout.write(json.dumps(answer, allow_nan=False) + "\n")
    return 0


def mendable(error: BaseException) -> bool:
    """Whether the user can mend it: trouble with files, or what a `raise` in this package says in words.

    A ValueError or ZeroDivisionError that Python, torch or numpy finds is a bug of ours.
    """
    if isinstance(error, OSError):
        return True
    import dis

    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    code = trace.tb_frame.f_code
    ours = Path(code.co_filename).is_relative_to(Path(__file__).parent)
    return ours and dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def complain(arguments: argparse.Namespace, words: str, code: int) -> int:
    """One line on stderr, whichever process says it."""
    process = "" if is_main() else f" (process {os.environ['RANK']})"
    sys.stderr.write(f"pictura {arguments.name}{process}: {words}\n")
    return code


def say(line: str) -> None:
    """A line for people, on stderr."""
    if is_main():
        sys.stderr.write(line + "\n")


def is_main() -> bool:
    """Whether this is the process that talks, of those that `torchrun` has started."""
    return os.environ.get("RANK", "0") == "0"


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} -h\n")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of one verb. Words that argparse leaves over when options stand between them find their list."""
    top = parser()
    arguments, over = top.parse_known_args(argv)
    if over and (arguments.rest is None or any(word.startswith("-") for word in over)):
        top.error(f"{arguments.name} does not know {' '.join(over)}")
    if over:
        getattr(arguments, arguments.rest).extend(over)
    return arguments


def parser() -> argparse.ArgumentParser:
    """All verbs, their arguments and examples."""
    top = Parser(
        "pictura",
        description="Train, adapt, measure and serve vision-language models on the hardware you have.",
        epilog="example: pictura demo",
    )
    top.add_argument("--version", action="version", version=f"pictura {__version__}")
    verbs = top.add_subparsers(dest="name", required=True, metavar="verb")

    def verb(function: Callable[[argparse.Namespace], Answer], help: str, *examples: str) -> argparse.ArgumentParser:
        name = function.__name__.removesuffix("_")
        p: argparse.ArgumentParser = verbs.add_parser(
            name,
            help=help,
            description=help,
            epilog="\n  ".join(["examples:" if len(examples) > 1 else "example:", *examples]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        p.add_argument("--json", action="store_true", help="one JSON object on stdout, everything else on stderr")
        p.set_defaults(verb=function, rest=None)
        return p

    def overridable(p: argparse.ArgumentParser) -> None:
        p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the recipe, such as seed=1")
        p.set_defaults(rest="overrides")

    p = verb(demo, "Train a CLIP on the built-in picture world and show what it can do.", "pictura demo")
    p.add_argument("--out", type=Path, help="run folder (default: runs/demo, or the first free runs/demo-2, …)")
    overridable(p)

    p = verb(
        train,
        "Train a recipe, or go on with a run. SIGTERM and Ctrl-C save a checkpoint first.",
        "pictura train demo training.steps=20 schedule.warmup=5 --out runs/short",
        "pictura train --resume runs/short training.steps=40",
        "torchrun --nproc-per-node 2 -m pictura train demo training.parallel=fsdp --out runs/two",
    )
    p.add_argument("recipe", nargs="?", help="a recipe's name (pictura list recipes) or a .yaml file")
    p.add_argument("--out", type=Path, help="run folder (default: runs/NAME)")
    p.add_argument("--resume", type=Path, metavar="RUN", help="go on with the run in this folder")
    overridable(p)

    p = verb(evaluate, "Measure a model.", "pictura evaluate runs/demo/model --on demo --report report.html")
    p.add_argument("model", help="a model: a folder or file of weights, ours or another's; a hub name")
    p.add_argument("--on", required=True, help="a recipe whose `evaluation` to run: a name or a .yaml file")
    p.add_argument("--report", type=Path, help="write a page with pictures here")
    overridable(p)

    p = verb(
        classify,
        "Classification of pictures: zero-shot with --labels, else by the model's own head.",
        'pictura classify runs/demo/model a.png --labels "red star,blue ring"',
    )
    p.add_argument("model", help="a model: a folder or file of weights, ours or another's; a hub name")
    p.add_argument("images", nargs="+", type=Path, help="picture files, or folders of them")
    p.add_argument("--labels", help="comma-separated, or a text file of one label a line (a classifier needs none)")
    p.add_argument("--templates", default="plain", help="sentences around the labels: a set's name, or one with {}")
    p.add_argument("--top", type=int, default=5, help="how many labels to show (default: 5)")

    p = verb(
        ask,
        "Questions about a picture, answered by a model that was trained on questions.",
        'pictura ask runs/questions/model a.png "how many red things are there?"',
    )
    p.add_argument("model", help="a model: a folder or file of weights, ours or another's; a hub name")
    p.add_argument("image", type=Path, help="a picture file")
    p.add_argument("question", nargs="+", help="one question or several, each in quotes")
    p.add_argument("--top", type=int, default=3, help="how many answers to show (default: 3)")
    p.add_argument("--words", type=Path, help="a .png to draw into where each word of the first question is found")

    p = verb(
        detect,
        "Things in pictures, found by their names, whichever these are.",
        'pictura detect runs/detector/model a.png "red star" ring --out found',
        "pictura detect runs/detector/model a.png star ring --attributes red,blue",
    )
    p.add_argument("model", help="a detector: a folder of weights")
    p.add_argument(
        "given",
        nargs="+",
        metavar="PICTURE|NAME",
        help="picture files and folders of them; anything else is a name to look for (default: those trained on)",
    )
    p.add_argument("--attributes", help="look for each name with each of these: comma-separated, or a text file")
    p.add_argument("--threshold", type=float, default=0.1, help="the least score that is told (default: 0.1)")
    p.add_argument(
        "--top", type=int, help="how many things of a picture, at most (default: as many as the model tells)"
    )
    p.add_argument("--out", type=Path, help="a folder for pictures with boxes drawn in, and COCO's detections.json")
    p.set_defaults(rest="given")

    p = verb(
        teach,
        "What a CLIP says of a detector's proposals, written down for a recipe whose data is `taught`.",
        "pictura teach vild.yaml --teacher runs/demo/model --proposer runs/detector/model",
    )
    p.add_argument("recipe", help="a recipe's name or a .yaml file")
    p.add_argument(
        "--teacher", required=True, help="a clip: a folder or file of weights, ours or another's; a hub name"
    )
    p.add_argument("--proposer", required=True, help="a detector: a folder of weights")
    p.add_argument("--regions", type=int, default=64, help="how many of a picture, at most (default: 64)")
    overridable(p)

    p = verb(
        embed,
        "Pictures or texts to unit vectors, saved as .npy, with their names beside it, one a line.",
        "pictura embed runs/demo/model a.png --out vectors.npy",
        "pictura embed runs/demo/model --texts labels.txt --out labels.npy",
        "pictura embed runs/demo/model a.png --layers 0,-1 --out vectors.npy",
    )
    p.add_argument("model", help="a model: a folder or file of weights, ours or another's; a hub name")
    p.add_argument("images", nargs="*", type=Path, help="picture files, or folders of them")
    p.add_argument("--texts", type=Path, help="a text file instead, one text a line")
    p.add_argument("--out", type=Path, required=True, help="where the array [n e] goes, float32")
    p.add_argument(
        "--layers",
        help="outputs of these layers of the picture tower instead, such as 3,-1 (-1 is the last; --layers=-1,3 where "
        "it comes first), each in a file of its own beside --out: vectors.layer3.npy, vectors.layer-1.npy",
    )
    p.set_defaults(rest="images")

    p = verb(
        convert,
        "Write a model as another project has it: for Hugging Face, open_clip, timm, …",
        "pictura convert runs/demo/model copies/demo --to pictura --dtype bf16",
        "pictura convert openai/clip-vit-base-patch32 clip --to open_clip",
        "pictura convert vit.npz vit-384 --to timm image.image_size=384 classes=0",
    )
    p.add_argument(
        "model", metavar="source", help="a model: a folder or file of weights, ours or another's; a hub name"
    )
    p.add_argument("target", type=Path, help="a new folder")
    p.add_argument("--to", required=True, help="pictura, google, huggingface, open_clip, timm, torchvision or vilt")
    p.add_argument("--dtype", choices=("float32", "float16", "bf16"), help="of the weights (default: as they are)")
    overridable(p)

    p = verb(plan, "Parameters, FLOPs, memory and time of a recipe, before spending them.", "pictura plan demo")
    p.add_argument("recipe", help="a recipe's name or a .yaml file")
    overridable(p)

    p = verb(list_, "What there is.", "pictura list models", "pictura list recipes", "pictura list data")
    p.add_argument("what", choices=("models", "recipes", "data"), help="what to list")
    return top


def demo(a: argparse.Namespace) -> Answer:
    from pictura import run

    say("A small CLIP learns from drawn scenes and sentences about them: no labels, no downloads.")
    out = a.out or run.free(Path("runs/demo"))
    metrics = run.demo(out, a.overrides, say=say)
    rows = [(f"{metrics[name]:.1%}", words) for name, words in run.DEMO.items() if name in metrics]
    show(a, f"right after {metrics['seconds'] / 60:.1f} minutes, on scenes that it has never seen", rows)
    return metrics


def train(a: argparse.Namespace) -> Answer:
    from pictura import run
    from pictura.training.metrics import json_ready

    if a.resume is not None:
        overrides = [a.recipe, *a.overrides] if a.recipe else a.overrides
        if odd := [word for word in overrides if "=" not in word]:
            raise ValueError(
                f"--resume goes on with a run's own recipe: {odd[0]} is too much, only key=value may follow"
            )
        if a.out is not None:
            raise ValueError("--resume goes on in the run's own folder; leave --out out")
        return json_ready(run.resume(a.resume, overrides, say=say))
    if a.recipe is None:
        raise ValueError("give a recipe (pictura list recipes), or --resume RUN")
    recipe = run.read_recipe(a.recipe, a.overrides)
    return json_ready(run.train(recipe, a.out or Path("runs") / Path(a.recipe).stem, say=say))


def evaluate(a: argparse.Namespace) -> Answer:
    from pictura import run
    from pictura.evaluation.panels import shown

    if a.report:
        check_place("--report", a.report)
    metrics = run.evaluate(a.model, run.read_recipe(a.on, a.overrides), a.report)
    show(a, str(a.model), [(name, shown(name, value)) for name, value in metrics.items()])
    if a.report:
        say(f"report: {a.report}")
    return metrics


def classify(a: argparse.Namespace) -> Answer:
    from pictura import run

    labels, images = None if a.labels is None else read_labels(a.labels), pictures(a.images)
    if a.top < 1:
        raise ValueError(f"--top: {a.top} shows nothing; give 1 or more")
    model = run.load(a.model)
    with run.watched(model.embedder):
        answers = model.classify(images, labels, templates=a.templates)
    out: dict[str, dict[str, float]] = {}
    rows = []
    for path, answer in zip(images, answers, strict=True):
        best = out[str(path)] = dict(sorted(answer.items(), key=lambda item: -item[1])[: a.top])
        names = [str(path), *[""] * len(best)]
        rows += [(name, label, f"{p:.1%}", bar(p)) for name, (label, p) in zip(names, best.items(), strict=False)]
    show(a, "", rows)
    return out


def ask(a: argparse.Namespace) -> Answer:
    from pictura import run

    if a.top < 1:
        raise ValueError(f"--top: {a.top} shows nothing; give 1 or more")
    if a.words is not None:
        check_place("--words", a.words)
    questions = list(dict.fromkeys(a.question))  # the same one twice is answered once
    model = run.load(a.model)
    with run.watched(model.embedder):
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


def detect(a: argparse.Namespace) -> Answer:
    from pictura import run
    from pictura.data.source import PICTURE_SUFFIXES
    from pictura.evaluation.detect import expanded

    def is_picture(word: str) -> bool:
        return os.path.exists(word) or Path(word).suffix.lower().removeprefix(".") in PICTURE_SUFFIXES

    images = pictures([Path(word) for word in a.given if is_picture(word)])
    names = [word for word in a.given if not is_picture(word)]
    if not images:
        raise ValueError(f"give a picture file, or a folder of them; {', '.join(a.given)} is none")
    for word in names:
        if not word.strip() or word.endswith(os.sep) or word.startswith((os.sep, ".", "~")):
            raise ValueError(f"{word!r} is no picture or folder that is there, and no name to look for")
    if a.top is not None and a.top < 1:
        raise ValueError(f"--top: {a.top} shows nothing; give 1 or more")
    if a.out is not None and a.out.exists() and not a.out.is_dir():
        raise ValueError(f"--out {a.out}: is a file; give a folder")
    if a.out is not None:
        run.drawn_at(a.out, images)
    attributes = None if a.attributes is None else read_labels(a.attributes, "--attributes")
    model = run.load(a.model)
    found: Iterable[Mapping[str, Any]] = model.detections(images, names, a.threshold, a.top, attributes)
    if a.out is not None:
        every = expanded(names or model.embedder.model.config.class_names, attributes)
        found = run.saving(a.out, images, found, every)
    out: dict[str, list[dict[str, Any]]] = {}
    rows = []
    with run.watched(model.embedder):
        for path, one in zip(images, found, strict=True):
            told = zip(one["text_labels"], one["scores"].tolist(), one["boxes"].round().int().tolist(), strict=True)
            out[str(path)] = [
                {"score": score, "label": name, "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))}
                for name, score, box in told
            ]
    for key, things in out.items():
        for place, thing in enumerate(things or [{"label": "nothing", "score": 0.0, "box": {}}]):
            where = " ".join(map(str, thing["box"].values()))
            score = f"{thing['score']:.1%}" if thing["box"] else ""
            rows.append((key if not place else "", thing["label"], score, where))
    show(a, "", rows)
    if a.out is not None:
        say(f"{a.out}: the pictures with what was found, and detections.json")
    return out


def teach(a: argparse.Namespace) -> Answer:
    from pictura import run

    told = run.teach(run.read_recipe(a.recipe, a.overrides), a.teacher, a.proposer, a.regions)
    show(a, "", [(name, str(value)) for name, value in told.items()])
    return told


def embed(a: argparse.Namespace) -> Answer:
    from pictura import run

    if bool(a.images) == bool(a.texts):
        raise ValueError("give picture files, or --texts FILE: one of the two")
    if a.texts and a.layers is not None:
        raise ValueError("--layers: they are of the picture tower; give picture files, or leave --layers out")
    layers = None if a.layers is None else read_numbers("--layers", a.layers)
    check_place("--out", a.out)
    given = read_lines(a.texts) if a.texts else pictures(a.images)
    model = run.load(a.model)
    names = a.out.with_suffix(".txt")
    with run.watched(model.embedder):
        if layers is not None:
            found = model.embed_images(given, layers)
            arrays = {a.out.with_suffix(f".layer{layer}{a.out.suffix}"): found[layer] for layer in layers}
        else:
            arrays = {a.out: model.embed_texts(list(map(str, given))) if a.texts else model.embed_images(given)}
    for path, vectors in arrays.items():
        run.save_array(path, vectors)
    run.write_text(names, "".join(f"{name}\n" for name in given))
    rows = [(str(path), "{:,} vectors of {} numbers".format(*vectors.shape)) for path, vectors in arrays.items()]
    show(a, "", [*rows, (str(names), "what each of them is of")])
    written = [{"path": str(path), "shape": list(vectors.shape)} for path, vectors in arrays.items()]
    return {"names": str(names)} | (
        written[0] if layers is None else {"layers": dict(zip(layers, written, strict=True))}
    )


def convert(a: argparse.Namespace) -> Answer:
    import torch

    from pictura.weights.convert import convert

    dtypes = {None: None, "float32": torch.float32, "float16": torch.float16, "bf16": torch.bfloat16}
    done = convert(a.model, a.target, a.to, a.overrides, dtypes[a.dtype])
    show(a, "", [(str(a.target), f"{done.parameters:,} parameters for {a.to}: {', '.join(done.files)}")])
    for note in done.notes:
        say(note)
    answer = {"path": str(a.target), "to": a.to, "parameters": done.parameters, "files": list(done.files)}
    return answer | {"notes": list(done.notes)}


def plan(a: argparse.Namespace) -> Answer:
    from pictura import facts, run

    planned = facts.plan(run.read_recipe(a.recipe, a.overrides))
    show(a, f"{a.recipe}, on this machine", facts.in_words(planned))
    return planned


def list_(a: argparse.Namespace) -> Answer:
    from pictura import facts

    rows = facts.catalogue(a.what)
    show(a, facts.TITLES[a.what], [(name, *facts.cells(row)) for name, row in rows.items()], facts.HEADS[a.what])
    return rows


def show(a: argparse.Namespace, title: str, rows: Iterable[Sequence[str]], heads: Sequence[str] = ()) -> None:
    """A table: on stdout, or on stderr where stdout is for JSON."""
    if not is_main():
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    layout: dict[str, Any] = {"title_justify": "left", "box": None, "padding": (0, 2, 0, 0)}
    grid = Table(*heads, title=title or None, show_header=bool(heads), **layout)
    for row in rows:
        grid.add_row(*map(Text, row))  # as it stands: a label may hold brackets
    Console(stderr=a.json).print(grid)


def bar(share: float) -> str:
    """A share, to look at."""
    return "█" * round(20 * share)


def pictures(paths: Sequence[Path]) -> list[Path]:
    """Files as they are, folders as the pictures in them."""
    from pictura.data.folders import pictures_under

    found: list[Path] = []
    for path in paths:
        inside = pictures_under(os.path.realpath(path), "", outside_links=False) if path.is_dir() else None
        some = [path] if inside is None else [path / name for name in inside]
        if not some:
            raise ValueError(f"{path}: there is no picture in this folder")
        found += some
    return found


def check_place(option: str, path: Path) -> None:
    """ValueError where a file cannot be written later, before hours are spent on what goes into it."""
    if not path.absolute().parent.is_dir() or path.is_dir():
        wrong = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise ValueError(f"{option} {path}: {wrong}; give the path of a file in a folder that is there")


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a text file."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start})") from error
    if not any(lines):
        raise ValueError(f"{path}: has no lines")
    return [line for line in lines if line]


def read_numbers(option: str, given: str) -> list[int]:
    """Different whole numbers with commas between them."""
    words = [word.strip() for word in given.split(",")]
    whole = all(word.removeprefix("-").isdecimal() for word in words)
    numbers = [int(word) for word in words] if whole else []
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"{option}: {given} is no list of different whole numbers with commas, such as 3,-1")
    return numbers


def read_labels(given: str, option: str = "--labels") -> list[str]:
    """Labels from a comma-separated string, or from a text file of one a line."""
    if "," not in given:
        if not Path(given).is_file():
            raise ValueError(f"{option}: {given} is no text file, and not several words with commas between them")
        return read_lines(Path(given))
    return [label.strip() for label in given.split(",") if label.strip()]
