"""`pictura fit`."""

import argparse
from pathlib import Path
from typing import Any

from pictura.verbs.common import Answer, check_place, read_data, read_labels, reads_model, say, show

ABOUT = "A classifier from a few labelled pictures of each class, as a small file; the model stays as it is."
EXAMPLES = (
    "pictura fit runs/demo/model --data kinds/train --out kinds.safetensors",
    "pictura fit runs/demo/model --data kinds/train --shots 4 --templates drawn --out kinds.safetensors",
)
METHODS = ("prompt_logistic", "prompt_ridge", "logistic", "ridge")


def arguments(p: argparse.ArgumentParser) -> None:
    reads_model(p)
    p.add_argument("--data", required=True, help="labelled pictures: a folder of class folders; a table; a .yaml")
    p.add_argument("--out", type=Path, required=True, help="a .safetensors file, for `classify --classifier`")
    p.add_argument("--shots", type=int, help="pictures of each class at most (default: all)")
    p.add_argument(
        "--method",
        choices=METHODS,
        help="prompt_… begin at the names (default: prompt_logistic, and ridge for a model that reads no texts)",
    )
    p.add_argument("--labels", help="what the classes are called, in order: comma-separated, or a text file")
    p.add_argument("--templates", default="simple", help="sentences around the names (default: simple)")
    p.add_argument("--seed", type=int, default=0, help="another one draws other pictures, of --shots (default: 0)")


def answer(a: argparse.Namespace) -> Answer:
    from pictura.evaluation.fitted import fit_classifier
    from pictura.evaluation.intervals import wilson
    from pictura.evaluation.prompts import prompts_of
    from pictura.evaluation.ready import load
    from pictura.evaluation.watched import watched
    from pictura.evaluation.zeroshot import named

    check_place("--out", a.out)
    if a.out.suffix != ".safetensors":
        raise ValueError(f"--out {a.out}: give it a name that ends in .safetensors")
    prompts, source = prompts_of(a.templates), read_data(a.data).build()
    names = named(source, read_labels(a.labels) if a.labels else [], a.data)
    model = load(a.model)
    method: Any = a.method or ("prompt_logistic" if hasattr(model.model, "encode_text") else "ridge")
    with watched(model.embedder):
        fit = fit_classifier(model.embedder, source, names, method, shots=a.shots, prompts=prompts, seed=a.seed)
    fit.fitted.save(a.out)
    told: dict[str, Any] = {"out": str(a.out), "method": method, "classes": len(names), "pictures": len(fit.right)}
    rows = []
    for what, right in (("top1", fit.right), ("zeroshot", fit.zeroshot)):
        if right is not None:
            low, high = wilson(int(right.sum()), len(right))
            told[what] = {"mean": float(right.double().mean()), "low": low, "high": high}
            said = {"top1": f"{method}, of pictures not learnt from", "zeroshot": "zero-shot, of the same pictures"}
            rows.append((said[what], f"{told[what]['mean']:.1%}", f"{low:.1%} to {high:.1%}"))
    show(a, "", rows, ("", "top-1", "95 % interval"))
    say(f"{a.out}: {len(names)} classes, from {len(fit.right):,} pictures")
    return told
