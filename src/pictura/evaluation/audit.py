"""Where a model should not be trusted, in words, from what the evaluators of `suite` have found.

The limits are those that CLIP's authors tell of (Radford et al. 2021, sections 3.1.5, 3.3 and 6): fine classes,
counting, pictures unlike those of training, and few examples; with those found since: words that are bound to nothing
(Thrush et al. 2022; Yuksekgonul et al. 2023), words written in the picture (Goh et al. 2021), and probabilities.

Metrics are judged here and not by their evaluators: a verdict takes several of them, some of two evaluators, and which
data are unlike the plain ones only `suite` knows. A test holds the names against what evaluators yield.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pictura.evaluation.panels import Panel, Table

WEAK = 0.75  # of choices; below, a sentence is often taken for its opposite
FALLEN = 0.9  # of what is reached on plain data
OFF = 0.05  # between how sure and how right


@dataclass(frozen=True)
class Finding:
    """Something looked at, what was found, whether it can be trusted, and what a user can do."""

    what: str
    found: str
    verdict: str  # fine, weak, or no
    remedy: str = ""


def findings(metrics: Mapping[str, float]) -> list[Finding]:
    """{metric: value} of the evaluators of `suite` -> what is to be said of each limit that was looked at."""
    found = list[Finding]()
    base = metrics.get("zeroshot/top1")
    for name in ("fine", "new_combinations", "new_shapes", "new_style"):
        if (value := metrics.get(f"zeroshot/{name}/top1")) is not None:
            found.append(shifted(name.replace("_", " "), value, base))
    for metric, value in metrics.items():
        title, _, leaf = metric.rpartition("/")
        if leaf == "accuracy" and title.startswith("choices/"):
            found.append(chosen(title.removeprefix("choices/"), value, metrics[f"{title}/chance"]))
    if (fooled := metrics.get("typographic/fooled")) is not None:
        after, covered = metrics["typographic/inscribed/top1"], metrics["typographic/covered/top1"]
        chance = metrics["typographic/covered/fooled"]
        says = f"{after:.1%} right with a name stuck on ({fooled:.1%} say it); blank, {covered:.1%} ({chance:.1%})"
        found.append(Finding("written words", says, graded(1 - fooled, 0.9, 0.5), "cover writing, or detect it first"))
    if base and (mean := metrics.get("robustness/mean/top1")) is not None:
        kinds = {m.split("/")[1]: v for m, v in metrics.items() if m.startswith("robustness/") and m.endswith("/top1")}
        worst = sorted((v, k) for k, v in kinds.items() if k not in ("clean", "mean"))[:3]
        says = f"{mean:.1%} of {kinds['clean']:.1%}; worst: " + ", ".join(f"{k} {v:.1%}" for v, k in worst)
        verdict = graded(mean / max(kinds["clean"], 1e-9), FALLEN, 0.6)
        found.append(Finding("corrupted pictures", says, verdict, "fine-tune with such pictures among the others"))
    if (dip := metrics.get("few_shot/ridge/dip")) is not None:
        after = metrics.get("few_shot/prompt_logistic/dip", dip)
        says = f"a linear probe falls {100 * dip:.1f} points below zero-shot; begun at the names, {100 * after:.1f}"
        found.append(Finding("few examples", says, graded(1 - dip, 0.98, 0.9), "methods: [prompt_logistic]"))
    if (error := metrics.get("calibration/error")) is not None:
        says = f"answers are {100 * error:.1f} points off how sure they are"
        found.append(
            Finding("probabilities", says, graded(1 - error, 1 - OFF, 0.85), "pictura prompts --out, a temperature")
        )
    if (known := metrics.get("calibration/separation")) is not None:
        says = f"tells what is of no class from what is of one in {known:.1%} of pairs"
        found.append(Finding("none of these", says, graded(known, 0.9, 0.7), "pictura prompts --out, a curve for it"))
    if (known := metrics.get("calibration/outside/separation")) is not None:
        says = f"tells pictures of something else from those of a class in {known:.1%} of pairs"
        found.append(Finding("something else", says, graded(known, 0.9, 0.7), "pictura prompts --out, a curve for it"))
    return found


def shifted(name: str, value: float, base: float | None) -> Finding:
    """Zero-shot on data unlike the plain one."""
    against = "" if base is None else f", {base:.1%} on plain pictures"
    verdict = graded(value / max(base or value, 1e-9), FALLEN, 0.6)
    return Finding(name, f"{value:.1%} right{against}", verdict, "train on pictures of this kind, or fine-tune")


def chosen(kind: str, value: float, chance: float) -> Finding:
    """Which of several sentences is true."""
    verdict = graded((value - chance) / max(1 - chance, 1e-9), 2 * WEAK - 1, 0.1)
    remedy = "a model that reads both together (vilt), or captions with this in them"
    return Finding(kind, f"{value:.1%} right, {chance:.1%} by chance", verdict, remedy)


def graded(value: float, fine: float, weak: float) -> str:
    """The verdict on a value of which more is better: "fine" from `fine` on, "weak" from `weak` on, else, and for a
    NaN, "no"."""
    return "fine" if value >= fine else "weak" if value >= weak else "no"


def panel(found: list[Finding]) -> Panel:
    """For the top of the report."""
    rows = [(one.what, one.verdict, one.found, one.remedy if one.verdict != "fine" else "") for one in found]
    order = {"no": 0, "weak": 1, "fine": 2}
    note = "`no`: do not trust it here; `weak`: look twice. What helps is beside it."
    rows.sort(key=lambda row: order[row[1]])
    return Table("Where it should not be trusted", ("limit", "trust", "found", "what helps"), rows, note=note)
