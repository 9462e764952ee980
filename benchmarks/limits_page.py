"""The tables and the picture of docs/limits.md, from what `limits` has measured: {subject: run}."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .trained import DOCS, Run, write_between

METHODS = ("ridge", "logistic", "prompt_ridge", "prompt_logistic", "cache")
SHOTS = (1, 2, 4, 8, 16)
FEW = {"scenes": "few_shot", "photographs": "few_shot/cifar10"}  # what the picture shows
LABELS = {
    "few_shot": "shapes", "shape": "shapes", "heldout": "new pairs of colour and shape", "objects": "160 classes",
    "cifar10": "CIFAR-10",
}  # fmt: skip
ASKED = {  # a metric, in words; what a subject was not asked has no row
    "zeroshot/fresh/top1": "shapes, plain pictures (12 classes)",
    "zeroshot/style/top1": "shapes, in another style of drawing (12 classes)",
    "zeroshot/shapes/top1": "3 shapes that were never shown nor named, among 15 classes",
    "zeroshot/imagenet/top1": "160 classes by the 80 sentences of CLIP's authors for ImageNet",
    "zeroshot/cifar10/top1": "CIFAR-10, whose pictures it has never seen",
    "typographic/covered/top1": "with a blank label stuck on the picture",
    "typographic/covered/fooled": "of these, taken for a class whose name is not written on it",
    "typographic/inscribed/top1": "with that name written on it",
    "typographic/fooled": "of these, taken for what is written (less is better)",
    "calibration/error": "how sure it is, less how right, in the mean (less is better)",
    "calibration/separation": "told whether a picture is of any of the classes, of pairs",
    "calibration/outside/separation": "told whether a picture is of a known shape or one never seen, of pairs",
    "actions/top1": "what happens in a film, by words (8 motions in scenes, 4 of a camera over photographs)",
    "actions/probe/top1": "the same, by ridge regression on frames and their order",
}


def write(done: dict[str, Run]) -> None:
    """Tables between the page's marks, and the picture beside it."""
    write_between(DOCS / "limits.md", "limits", tables(done))
    if any(run["curves"] for run in done.values()):
        plot(done, DOCS / "limits.svg")


def tables(done: dict[str, Run]) -> str:
    """The page's tables, of the subjects that were measured."""
    parts = [text for make in (prompts, few, chosen, corrupted, others, told) if (text := make(done))]
    measured_on = {run["machine"] for run in done.values()}
    minutes = sum(run["seconds"] for run in done.values()) / 60
    ends = max(run["date"][:10] for run in done.values())
    return "\n\n".join([*parts, f"Measured in {minutes:.0f} minutes; {', '.join(measured_on)}, {ends}."])


def prompts(done: dict[str, Run]) -> str:
    """What an ensemble of sentences gains over its sentences."""
    rows = []
    for subject, run in done.items():
        for name, (low, mean, high, together, gain, *ends) in sorted(run["gains"].items()):
            rows.append((
                f"{subject}, {LABELS.get(name, name)}", *map(points, (low, mean, high, together)),
                f"{100 * gain:+.1f} ({100 * ends[0]:+.1f} to {100 * ends[1]:+.1f})",
            ))  # fmt: skip
    heads = ("zero-shot top-1", "worst sentence", "mean of them", "best one", "all together", "gain over the mean")
    return table(heads, rows)


def few(done: dict[str, Run]) -> str:
    """Methods by shots, beside zero-shot."""
    rows = []
    for subject, run in done.items():
        m = run["metrics"]
        for title in dict.fromkeys(metric.rsplit("/", 2)[0] for metric in m if metric.endswith("/zeroshot/top1")):
            name = f"{subject}, {LABELS.get(title.removeprefix('few_shot/'), title.removeprefix('few_shot/'))}"
            rows.append((f"**{name}**: zero-shot {points(m[f'{title}/zeroshot/top1'])}", *[""] * (len(SHOTS) + 1)))
            for method in METHODS:
                values = [f"{title}/{method}/{n}" for n in SHOTS]
                shown = [f"{points(m[f'{v}/top1'])} ± {100 * m[f'{v}/half_width']:.1f}" for v in values]
                rows.append((f"`{method}`", *shown, f"{100 * m[f'{title}/{method}/dip']:.1f}"))
    return table(("top-1, pictures of each class", *SHOTS, "points below zero-shot at most"), rows)


def chosen(done: dict[str, Run]) -> str:
    """Which of several sentences is true."""
    kinds = ("binding", "order", "relation", "count", "negation", "shape", "colour")
    rows = []
    for subject, run in done.items():
        m = run["metrics"]
        if "choices/accuracy" in m:
            rows.append((subject, *(of_chance(m, f"choices/{kind}") for kind in kinds)))
    return table(("right sentence (by chance)", *kinds), rows)


def of_chance(metrics: dict[str, float], title: str) -> str:
    value = metrics.get(f"{title}/accuracy")
    return "" if value is None else f"{points(value)} ({100 * metrics[f'{title}/chance']:.0f} %)"


def corrupted(done: dict[str, Run]) -> str:
    """The mean over severities of each corruption, those of both subjects side by side."""
    some = {subject: run for subject, run in done.items() if run["curves"]}
    metrics = {subject: run["metrics"] for subject, run in some.items()}
    names = ["clean", *next((run["curves"] for run in some.values()), ()), "mean"] if some else []
    rows = [
        (name.replace("_", " "), *(points(m[f"robustness/{name}/top1"]) for m in metrics.values())) for name in names
    ]
    return table(("corruption, mean of five severities", *some), rows)


def others(done: dict[str, Run]) -> str:
    """What else was asked."""
    rows = [
        (f"{subject}: {what}", points(run["metrics"][metric]))
        for subject, run in done.items()
        for metric, what in ASKED.items()
        if metric in run["metrics"]
    ]
    return table(("asked", "right"), rows)


def told(done: dict[str, Run]) -> str:
    """Captions by the official scores."""
    names = ("CIDEr", "BLEU-1", "BLEU-4", "ROUGE-L")
    rows = [
        (subject.removeprefix("captions of "), *(f"{run['metrics'][f'captions/{name}']:.3f}" for name in names))
        for subject, run in done.items()
        if "captions/CIDEr" in run["metrics"]
    ]
    return table(("captions of", *names), rows)


def points(share: float) -> str:
    return f"{100 * share:.1f} %"


def table(heads: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Markdown, all but the first column to the right; nothing where there are no rows."""
    if not rows:
        return ""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def plot(done: dict[str, Run], path: Path) -> None:
    """Left, the dip: top-1 by shots, zero-shot dashed. Right, corruptions by severity, grey, and their mean."""
    import matplotlib.pyplot as plt

    some = {subject: run for subject, run in done.items() if run["curves"]}
    plt.rcParams.update({"svg.hashsalt": "pictura", "font.size": 9})
    figure, axes = plt.subplots(len(some), 2, figsize=(8, 3 * len(some)), squeeze=False)
    for (subject, run), (left, right) in zip(some.items(), axes, strict=True):
        m, title = run["metrics"], FEW[subject]
        for method in METHODS:
            left.plot(SHOTS, [100 * m[f"{title}/{method}/{n}/top1"] for n in SHOTS], marker=".", label=method)
        left.axhline(100 * m[f"{title}/zeroshot/top1"], color="black", linestyle="--", linewidth=1, label="zero-shot")
        left.set(xscale="log", xticks=SHOTS, xticklabels=SHOTS, xlabel="pictures of each class", ylabel="top-1, %")
        left.set_title(f"{subject}, {LABELS[title.removeprefix('few_shot/')]}: few examples")
        left.legend(fontsize=7)
        severities = sorted(map(int, next(iter(run["curves"].values()))))
        clean, every = 100 * m["robustness/clean/top1"], []
        for curve in run["curves"].values():
            every.append([clean, *(100 * curve[str(s)] for s in severities)])
            right.plot([0, *severities], every[-1], color="0.8", linewidth=1)
        mean = [sum(some) / len(every) for some in zip(*every, strict=True)]
        right.plot([0, *severities], mean, color="black", marker=".")
        right.set(xlabel="severity", ylim=(0, None), title=f"{subject}: 15 corruptions and their mean")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
