"""ViLT's claim, measured: from pixels to an answer by regions of a detector, by a ResNet's map, and by patches.

    .venv/bin/python -m benchmarks.regions [--device cuda]     about twenty minutes on two cores
    .venv/bin/python -m benchmarks.regions --write             the tables of docs/regions.md

Kim et al. 2021, section 4.6 and table 6. `ways.py` says what is built. Times are taken in turn, in one process with
torch's own number of threads, medians over the turns; the memory of a call in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from . import measure
from .harness import machine
from .report import number
from .trained import DOCS, RESULTS, Run, kept, write_between
from .ways import Sizes, Way, photos, question

if TYPE_CHECKING:
    import torch

NAME = "regions"
WAYS = {
    "regions": "regions, NMS for each class",
    "regions_once": "regions, one NMS for all classes",
    "grid": "a ResNet-50's map",
    "patches": "patches: ViLT-B/32",
}
PAPER = {  # Kim et al. 2021, tables 2, 6 and 7: model, ms, GFLOP, million parameters
    "regions": ("UNITER-B: ResNet-101, 36 regions", 900, 949.9, 154.7),
    "regions_once": ("VinVL-B: ResNeXt-152, 50 regions", 650, 1023.3, 157.3),
    "grid": ("Pixel-BERT-R50: 260 cells", 60, 136.8, 94.9),
    "patches": ("ViLT-B/32: 200 patches", 15, 55.9, 87.4),
}
PARTS = ("preparing pictures", "features", "NMS of proposals", "NMS of regions", "Transformer")
PRECISIONS = ("float32", "bf16")


def turn(way: Way, pictures: list[Any], text: torch.Tensor, seconds: float) -> dict[str, float]:
    """Milliseconds of a call, the mean over about `seconds` and at least one call, as a `whole` and of each part."""
    import torch

    way.spent.clear()
    calls, began = 0, time.perf_counter()
    with torch.inference_mode():
        while not calls or time.perf_counter() - began < seconds:
            way(pictures, text)
            calls += 1
    spent = Counter({"whole": time.perf_counter() - began}) + way.spent
    spent["features"] -= spent["NMS of proposals"] + spent["NMS of regions"]  # they are inside
    return {part: 1e3 * spent[part] / calls for part in ("whole", *PARTS)}


def gflops(way: Way, pictures: list[Any], text: torch.Tensor) -> float:
    """Matrix products and convolutions of a call that run, multiplication and addition two, in units of 1e9."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from pictura.training.flops import unknown_to_torch

    with FlopCounterMode(display=False, custom_mapping=unknown_to_torch()) as counter, torch.no_grad():
        way(pictures, text)
    return float(counter.get_total_flops()) / 1e9


def memory(kind: str, precision: str, batch: int, device: str, sizes: Sizes) -> float:
    """MiB by which a call, not the first one, makes this process grow; what was freed before must not hide it."""
    import ctypes

    import torch

    pictures, text, way = photos(batch)[0], question(batch, device), Way(kind, precision, device, sizes)
    with torch.inference_mode():
        way(pictures, text)
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)  # gives free memory back to the system, where libc can
        return measure.memory_growth(lambda: way(pictures, text), device) / measure.MIB


def alone(function: Callable[..., Any], *given: Any) -> Any:
    """What `function` gives in a process of its own."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *given).result()


def measured(device: str, turns: int, batches: Sequence[int], seconds: float, sizes: Sizes) -> list[Run]:
    """A row for each way, precision and batch. In a turn all work one after the other; the first one is not counted."""
    import torch
    import torchvision

    pictures, what = photos(max(batches))
    text = question(max(batches), device)
    ways = {(kind, precision): Way(kind, precision, device, sizes) for precision in PRECISIONS for kind in WAYS}
    found: dict[tuple[str, str, int], list[dict[str, float]]] = {}
    for count in range(turns + 1):
        for batch in batches:
            for (kind, precision), way in ways.items():
                took = turn(way, pictures[:batch], text[:batch], seconds)
                found.setdefault((kind, precision, batch), []).extend([took] if count else [])
        sys.stderr.write(f"turn {count} of {turns}\n")
    arithmetic = {kind: gflops(ways[kind, "float32"], pictures[:1], text[:1]) for kind in WAYS}
    sizes_of = {kind: ways[kind, "float32"].parameters() for kind in WAYS}
    del ways, way
    here = {"device": device, "machine": machine(torch.cuda.get_device_name() if device == "cuda" else "")}
    here |= {"threads": torch.get_num_threads(), "pictures": what, "torch": torch.__version__.split("+")[0]}
    here |= {
        "torchvision": torchvision.__version__.split("+")[0],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return [
        {"way": kind, "precision": precision, "batch": batch, "runs": [round(one["whole"], 2) for one in took]}
        | {"parts": {part: round(statistics.median(one[part] for one in took), 2) for part in PARTS}}
        | {"gflops": round(arithmetic[kind], 2), "parameters": sizes_of[kind]}
        | {"memory_mib": round(alone(memory, kind, precision, batch, device, sizes), 1)}
        | here
        for (kind, precision, batch), took in found.items()
    ]


def latest(rows: list[Run]) -> dict[str, list[Run]]:
    """device -> the rows of the last measurement on it."""
    last = {row["device"]: row["date"] for row in sorted(rows, key=lambda row: row["date"])}
    return {device: [row for row in rows if (row["device"], row["date"]) == (device, last[device])] for device in last}


def tables(rows: list[Run]) -> str:
    """What docs/regions.md shows: for each device times and parts, then the paper's numbers."""
    found = latest(rows)
    pieces = [piece for device in sorted(found) for piece in (summary(found[device]), parts(found[device]))]
    if "cuda" not in found:
        pieces.append("Not measured on a GPU; `python -m benchmarks.regions --device cuda` does it where one is.")
    return "\n\n".join([*pieces, paper()])


def summary(rows: list[Run]) -> str:
    """A row for each way: milliseconds a picture, and how many times the patches' that is, turn by turn."""
    cells = {(row["way"], row["batch"], row["precision"]): row for row in rows}
    columns = sorted({(row["batch"], row["precision"]) for row in rows}, key=lambda c: (c[0], PRECISIONS.index(c[1])))
    alone = min(batch for batch, _ in columns)
    heads = [f"{'one' if batch == 1 else f'each of {batch}'}, {precision}, ms" for batch, precision in columns]
    heads += ["GFLOP", "parameters, M", f"memory of {alone}, MiB: {' / '.join(PRECISIONS)}"]
    lines = [f"| from pixels to an answer | {' | '.join(heads)} |", f"| --- {'| ---: ' * len(heads)}|"]
    for way, name in WAYS.items():
        line = []
        for batch, precision in columns:
            took, patches = cells[way, batch, precision]["runs"], cells["patches", batch, precision]["runs"]
            times = statistics.median(a / b for a, b in zip(took, patches, strict=True))
            note = "" if way == "patches" else f" ({number(times)} ×)"
            line.append(f"{number(statistics.median(took) / batch)}{note}")
        one = cells[way, *columns[0]]
        memory = (number(cells[way, alone, p]["memory_mib"]) for p in PRECISIONS if (way, alone, p) in cells)
        line += [number(one["gflops"]), number(one["parameters"] / 1e6), " / ".join(memory)]
        lines.append(f"| {name} | {' | '.join(line)} |")
    last = rows[-1]
    told = f"{last['machine']}, {last['threads']} threads, torch {last['torch']}, torchvision {last['torchvision']}"
    return "\n".join([*lines, "", f"{len(last['runs'])} turns; {last['pictures']}; {told}; {last['date'][:10]}."])


def parts(rows: list[Run]) -> str:
    """Where the time of the smallest batch goes."""
    batch = min(row["batch"] for row in rows)
    lines = [f"| of {batch}, ms and share | {' | '.join(PARTS)} |", f"| --- {'| ---: ' * len(PARTS)}|"]
    for row in (row for row in rows if row["batch"] == batch):
        took, whole = row["parts"], sum(row["parts"].values())
        line = [f"{number(took[part])} ({took[part] / whole:.0%})" if took[part] > 0 else "" for part in PARTS]
        lines.append(f"| {WAYS[row['way']]}, {row['precision']} | {' | '.join(line)} |")
    return "\n".join(lines)


def paper() -> str:
    """The paper's numbers for the models that are nearest."""
    lines = ["| the paper's | model | one, ms | GFLOP | parameters, M |", "| --- | --- | ---: | ---: | ---: |"]
    for way, (model, took, flops, parameters) in PAPER.items():
        note = "" if way == "patches" else f" ({number(took / PAPER['patches'][1])} ×)"
        lines.append(f"| {WAYS[way]} | {model} | ~{took}{note} | {flops:,} | {parameters} |")
    return "\n".join(
        [*lines, "", "Kim et al. 2021, tables 2, 6 and 7; a Xeon E5-2650 and a P40, means of 10,000 calls."]
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regions", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where it runs (default cpu)")
    parser.add_argument("--turns", type=int, default=9, help="how often each is measured (default 9)")
    parser.add_argument("--seconds", type=float, default=0.5, help="least length of one measurement (default 0.5)")
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 8), help="pictures at a time (default 1 8)")
    parser.add_argument("--write", action="store_true", help="write the tables of docs/regions.md from the rows kept")
    arguments = parser.parse_args()
    if arguments.write:
        write_between(DOCS / "regions.md", NAME, tables(kept(NAME)))
        return 0
    rows = measured(arguments.device, arguments.turns, arguments.batches, arguments.seconds, Sizes())
    with (RESULTS / f"{NAME}.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
