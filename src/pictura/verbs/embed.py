"""`pictura embed`."""

import argparse
from pathlib import Path

from pictura.verbs.common import Answer, check_place, pictures, read_lines, read_numbers, reads_model, show

ABOUT = "Pictures or texts to unit vectors, saved as .npy, with their names beside it, one a line."
EXAMPLES = (
    "pictura embed runs/demo/model a.png --out vectors.npy",
    "pictura embed runs/demo/model --texts labels.txt --out labels.npy",
    "pictura embed runs/demo/model a.png --layers 0,-1 --out vectors.npy",
)


def arguments(p: argparse.ArgumentParser) -> None:
    reads_model(p)
    p.add_argument("images", nargs="*", type=Path, help="picture files, or folders of them")
    p.add_argument("--texts", type=Path, help="a text file instead, one text a line")
    p.add_argument("--out", type=Path, required=True, help="where the array [n e] goes, float32")
    p.add_argument(
        "--layers",
        help="outputs of these layers of the picture tower instead, such as 3,-1 (-1 is the last; --layers=-1,3 where "
        "it comes first), each in a file of its own beside --out: vectors.layer3.npy, vectors.layer-1.npy",
    )
    p.set_defaults(rest="images")


def answer(a: argparse.Namespace) -> Answer:
    import numpy as np

    from pictura.evaluation.ready import load
    from pictura.evaluation.watched import watched
    from pictura.output.files import aside, write_text

    if bool(a.images) == bool(a.texts):
        raise ValueError("give picture files, or --texts FILE: one of the two")
    if a.texts and a.layers is not None:
        raise ValueError("--layers: they are of the picture tower; give picture files, or leave --layers out")
    layers = None if a.layers is None else read_numbers("--layers", a.layers)
    check_place("--out", a.out)
    given = read_lines(a.texts) if a.texts else pictures(a.images)
    model = load(a.model)
    names = a.out.with_suffix(".txt")
    with watched(model.embedder):
        if layers is not None:
            found = model.embed_images(given, layers)
            arrays = {a.out.with_suffix(f".layer{layer}{a.out.suffix}"): found[layer] for layer in layers}
        else:
            arrays = {a.out: model.embed_texts(list(map(str, given))) if a.texts else model.embed_images(given)}
    for path, vectors in arrays.items():
        with aside(path) as beside, beside.open("wb") as file:
            np.save(file, vectors)
    write_text(names, "".join(f"{name}\n" for name in given))
    rows = [(str(path), "{:,} vectors of {} numbers".format(*vectors.shape)) for path, vectors in arrays.items()]
    show(a, "", [*rows, (str(names), "what each of them is of")])
    written = [{"path": str(path), "shape": list(vectors.shape)} for path, vectors in arrays.items()]
    return {"names": str(names)} | (
        written[0] if layers is None else {"layers": dict(zip(layers, written, strict=True))}
    )
