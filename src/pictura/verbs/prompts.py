"""`pictura prompts`."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from pictura.verbs.common import Answer, check_place, read_data, read_labels, reads_model, say, show

ABOUT = "Sets of prompts compared on pictures with or without labels, and the best of them as a file for `classify`."
EXAMPLES = (
    "pictura prompts runs/demo/model --data kinds/test --sets plain,drawn --out best.yaml",
    'pictura prompts runs/demo/model --data more --labels "red star,blue ring" --out best.yaml',
)
TRIED = "plain,photo,simple,imagenet"


def arguments(p: argparse.ArgumentParser) -> None:
    reads_model(p)
    p.add_argument("--data", required=True, help="a folder of class folders, or of pictures; a table; data as a .yaml")
    p.add_argument("--labels", help="what the classes are called, in order: comma-separated, or a text file")
    p.add_argument(
        "--sets",
        default=TRIED,
        help=f"which to compare: names (pictura list prompts), .yaml files, .txt files of a sentence with {{}} a line "
        f"(default: {TRIED})",
    )
    p.add_argument(
        "--synonyms",
        action="store_true",
        help="each set also with WordNet's other words for the classes (without labels: in the file, untried)",
    )
    p.add_argument("--out", type=Path, help="a .yaml file for the best of them, for `classify --templates`")
    p.add_argument("--report", type=Path, help="write a page with pictures here")


def answer(a: argparse.Namespace) -> Answer:
    from pictura.evaluation.base import check_reads_texts
    from pictura.evaluation.prompt_search import panels, search
    from pictura.evaluation.prompts import prompts_of
    from pictura.evaluation.ready import load
    from pictura.evaluation.report import write_report
    from pictura.evaluation.synonyms import synonyms, with_synonyms
    from pictura.evaluation.watched import watched
    from pictura.evaluation.zeroshot import distinct, named
    from pictura.output.files import write_text

    for option, path in (("--out", a.out), ("--report", a.report)):
        if path is not None:
            check_place(option, path)
    if a.out is not None and a.out.suffix not in (".yaml", ".yml"):
        raise ValueError(f"--out {a.out}: give it a name that ends in .yaml")
    sets = {name.strip(): prompts_of(name.strip()) for name in a.sets.split(",") if name.strip()}
    if not sets:
        raise ValueError(f"--sets: none given; try {TRIED}")
    source = read_data(a.data).build()
    given = read_labels(a.labels) if a.labels else []
    if "label" not in source.provides and not given:
        raise ValueError(f"{a.data}: says nothing of classes; give --labels, what they are called")
    names = named(source, given, "prompts") if "label" in source.provides else distinct(given, "--labels")
    others = synonyms(names) if a.synonyms else {}
    if a.synonyms:
        say(f"synonyms: of {len(others)} of {len(names)} classes")
    model = load(a.model)
    check_reads_texts(model.model)
    if "label" in source.provides:
        sets |= {f"{name}, synonyms": with_synonyms(prompts, others) for name, prompts in sets.items() if others}
    with watched(model.embedder):
        found = search(model.embedder, source, names, sets)
    if "label" not in source.provides:  # nothing to choose by: they are as asked for
        found = replace(found, best=replace(found.best, prompts=with_synonyms(found.best.prompts, others)))
    rows = [one.row(one.name == found.best.name) for one in found.trials]
    show(a, "", [tuple(map(str, row)) for row in rows], found.heads)
    told: dict[str, Any] = {one.name: one.told() for one in found.trials}
    if a.out is not None:
        write_text(a.out, found.as_file(a.data))
        say(f"{a.out}: {found.best.name}")
    if a.report is not None:
        write_report(a.report, title=f"{a.model}: prompts", metrics=found.told, panels=panels(found))
        say(f"report: {a.report}")
    return {"sets": told, "best": found.best.name} | found.told
