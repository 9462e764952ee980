"""`pictura convert`."""

import argparse
from pathlib import Path

from pictura.verbs.common import Answer, overridable, say, show

ABOUT = "Write a model as another project has it: for Hugging Face, open_clip, timm, …"
EXAMPLES = (
    "pictura convert runs/demo/model copies/demo --to pictura --dtype bf16",
    "pictura convert openai/clip-vit-base-patch32 clip --to open_clip",
    "pictura convert vit.npz vit-384 --to timm image.image_size=384 classes=0",
)


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "model", metavar="source", help="a model: a folder or file of weights, ours or another's; a hub name"
    )
    p.add_argument("target", type=Path, help="a new folder")
    p.add_argument("--to", required=True, help="pictura, google, huggingface, open_clip, timm, torchvision or vilt")
    p.add_argument("--dtype", choices=("float32", "float16", "bf16"), help="of the weights (default: as they are)")
    overridable(p)


def answer(a: argparse.Namespace) -> Answer:
    import torch

    from pictura.weights.convert import convert

    dtypes = {None: None, "float32": torch.float32, "float16": torch.float16, "bf16": torch.bfloat16}
    done = convert(a.model, a.target, a.to, a.overrides, dtypes[a.dtype])
    show(a, "", [(str(a.target), f"{done.parameters:,} parameters for {a.to}: {', '.join(done.files)}")])
    for note in done.notes:
        say(note)
    answer = {"path": str(a.target), "to": a.to, "parameters": done.parameters, "files": list(done.files)}
    return answer | {"notes": list(done.notes)}
