"""`pictura draw`."""

import argparse
from pathlib import Path

from pictura.verbs.common import Answer, check_place, reads_model, say, show

ABOUT = "A drawing optimised until a model sees a text in it: what it responds to, and not what the thing looks like."
EXAMPLES = (
    'pictura draw runs/demo/model "a red star" --out star.png',
    'pictura draw runs/demo/model "a red star" --against "a blue star" --strokes 32 --out star.svg --report star.html',
)
SUFFIXES = (".png", ".svg", ".gif")


def arguments(p: argparse.ArgumentParser) -> None:
    reads_model(p)
    p.add_argument("text", help="what to draw, in quotes")
    p.add_argument("--out", type=Path, required=True, help="a .png; an .svg of the same strokes; a .gif of the way")
    p.add_argument("--steps", type=int, default=250, help="of the optimiser (default: 250)")
    p.add_argument("--strokes", type=int, default=64, help="how many (default: 64)")
    p.add_argument("--views", type=int, default=8, help="looks at it in each step: fewer are quicker (default: 8)")
    p.add_argument("--against", action="append", default=[], metavar="TEXT", help="what it shall not show; repeatable")
    p.add_argument("--size", type=int, default=512, help="pixels of a side of the .png or .gif (default: 512)")
    p.add_argument("--seed", type=int, default=0, help="another one gives another drawing (default: 0)")
    p.add_argument("--report", type=Path, help="write a page of how it came to be here")


def answer(a: argparse.Namespace) -> Answer:
    from PIL import Image

    from pictura.evaluation.guided import GuidedConfig, draw
    from pictura.evaluation.ready import load
    from pictura.evaluation.report import write_report
    from pictura.evaluation.strokes import check_size
    from pictura.evaluation.watched import watched
    from pictura.output.files import aside, write_text

    for option, path in (("--out", a.out), ("--report", a.report)):
        if path is not None:
            check_place(option, path)
    suffix = a.out.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"--out {a.out}: give it a name that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    check_size(a.size, "--size")
    frames = 32 if suffix == ".gif" else 8
    given = {"steps": a.steps, "strokes": a.strokes, "views": a.views, "seed": a.seed, "frames": frames}
    config = GuidedConfig(negatives=tuple(a.against), **given)
    model = load(a.model)
    with watched(model.embedder):
        drawing = draw(model.embedder, a.text, config)
    if suffix == ".svg":
        write_text(a.out, drawing.svg())
    elif suffix == ".gif":
        first, *rest = drawing.film(a.size)
        with aside(a.out) as path:
            first.save(path, save_all=True, append_images=rest, duration=[120] * len(rest) + [2000], loop=0)
    else:
        with aside(a.out) as path:
            Image.fromarray(drawing.image(a.size)).save(path)
    told = [{"step": frame.step, "cosine": frame.cosine} for frame in drawing.frames]
    show(a, "", [(f"{one['step']}", f"{one['cosine']:.3f}") for one in told], ("step", f"cosine with “{a.text}”"))
    say(f"{a.out}: {config.strokes} strokes after {config.steps} steps")
    if a.report is not None:
        metrics = {"cosine/drawn": drawing.frames[-1].cosine, "cosine/at first": drawing.frames[0].cosine}
        write_report(a.report, title=f"{a.model}: drawn", metrics=metrics, panels=drawing.panels())
        say(f"report: {a.report}")
    return {"out": str(a.out), "text": a.text, "cosine": drawing.frames[-1].cosine, "frames": told}
