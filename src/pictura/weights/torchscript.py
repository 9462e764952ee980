"""TorchScript archives, such as those in which OpenAI published CLIP: their tensors, by the names of a state dict.

Such an archive is a program. None of it is run: what its pickle describes is walked from module to module, and its
source is read, as text, for the names of each module's parameters and buffers (torch/csrc/jit/serialization).
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from pictura.weights.archives import Archive
from pictura.weights.pickles import MODULES, Thing
from pictura.weights.stored import Stored

SOURCE = 16 << 20
DEPTH, MOST = 100, 200_000  # of modules within modules, and of modules and tensors in all
CLASS = re.compile(
    r"^class (\w+)\(Module\):\s+__parameters__ = \[([^\]]*)\]\s+__buffers__ = \[([^\]]*)\]", re.MULTILINE
)


def read_modules(root: Any, archive: Archive, folder: str) -> dict[str, Stored]:
    """`root`, what the pickle of an archive describes; `folder`, where all lies in it -> its parameters and buffers.

    ValueError where it is no module, or one that holds itself.
    """
    if not (isinstance(root, Thing) and root.word.startswith(MODULES)):
        raise ValueError("holds no module, though it is a TorchScript archive")

    @cache
    def declared(module: str) -> dict[str, set[str]]:
        """Of each class in a file of source, the names of its parameters and buffers."""
        name = f"{folder}/code/{module.replace('.', '/')}.py"
        if archive.size(name) < 0:
            return {}
        text = archive.read(name, SOURCE).decode("utf-8", "replace")
        return {one: set(re.findall(r'"([^"]+)"', parts + buffers)) for one, parts, buffers in CLASS.findall(text)}

    def walk(module: Thing, prefix: str, depth: int) -> Iterator[tuple[str, Stored | None]]:
        if depth > DEPTH:
            raise ValueError(f"has more than {DEPTH} modules within modules, at {prefix[:40]}…")
        place, _, name = module.word.partition(" ")
        own = declared(place).get(name)
        yield prefix, None
        for key, value in module.state.items():
            if isinstance(value, Stored) and (own is None or key in own):
                yield f"{prefix}{key}", value
        for key, value in module.state.items():
            if isinstance(value, Thing) and value.word.startswith(MODULES):
                yield from walk(value, f"{prefix}{key}.", depth + 1)

    found: dict[str, Stored] = {}
    for count, (name, tensor) in enumerate(walk(root, "", 0)):
        if count > MOST:
            raise ValueError(f"has more than {MOST:,} modules and tensors")
        if tensor is not None:
            found[name] = tensor
    return found
