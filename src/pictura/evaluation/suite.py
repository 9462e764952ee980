"""What to measure without a recipe: whatever some data and a model allow, and the limits that are known of CLIPs."""

from typing import Any

from pictura.data.scenes import ScenesConfig
from pictura.data.source import SourceConfig
from pictura.evaluation.accuracy import AccuracyConfig
from pictura.evaluation.adapters import Method
from pictura.evaluation.base import EvaluatorConfig
from pictura.evaluation.calibration import CalibrationConfig
from pictura.evaluation.choices import ChoicesConfig
from pictura.evaluation.detection import DetectionConfig
from pictura.evaluation.few_shot import FewShotConfig
from pictura.evaluation.knn import KNNConfig
from pictura.evaluation.probe import ProbeConfig
from pictura.evaluation.retrieval import RetrievalConfig
from pictura.evaluation.robustness import RobustnessConfig
from pictura.evaluation.shift import ShiftConfig
from pictura.evaluation.throughput import ThroughputConfig
from pictura.evaluation.typographic import TypographicConfig
from pictura.evaluation.zeroshot import ZeroShotConfig

Suite = dict[str, EvaluatorConfig]
FEW: tuple[Method, ...] = ("zeroshot", "ridge", "prompt_logistic", "cache")


def suite(
    model: Any,
    data: SourceConfig,
    train: SourceConfig | None = None,
    templates: str = "simple",
    shifted: SourceConfig | None = None,
) -> Suite:
    """What `data` and `model` allow, by name; `shifted`: other pictures of the same classes. ValueError where that is
    nothing, for `train` without labels, and for `shifted` where names are of no use."""
    provides, found = data.build().provides, Suite()
    reads = hasattr(model, "encode_text")
    if "label" in provides and "image" in provides:
        if reads:
            found["zeroshot"] = ZeroShotConfig(data=data, templates=templates)
            found["calibration"] = CalibrationConfig(data=data, templates=templates)
            if shifted is not None:
                found["shift"] = ShiftConfig(data=data, shifted=shifted, templates=templates)
        if getattr(model, "head", None) is not None:
            found["accuracy"] = AccuracyConfig(data=data)
        if train is not None:
            if "label" not in train.build().provides:
                raise ValueError("--train: it has no labels to learn from")
            found["probe"] = ProbeConfig(train=train, test=data)
            found["knn"] = KNNConfig(train=train, test=data)
            found["few_shot"] = FewShotConfig(
                train=train, test=data, templates=templates, methods=FEW if reads else ("ridge",)
            )
    if "captions" in provides and (reads or hasattr(model, "match")):
        found["retrieval"] = RetrievalConfig(data=data)
    if "choices" in provides:
        found["choices"] = ChoicesConfig(data=data)
    if "boxes" in provides and hasattr(model, "detect"):
        found["detection"] = DetectionConfig(data=data)
    if shifted is not None and "shift" not in found:
        why = "--on has no labels" if reads else f"this model ({model.config.kind}) reads no texts alone"
        raise ValueError(f"--shifted: is compared zero-shot, by the names of classes, and {why}; leave it out")
    if not found:
        raise ValueError(
            f"nothing of this data ({', '.join(sorted(provides))}) can be measured of this model "
            f"({model.config.kind}); labels are needed in folders, or captions, and a model that reads texts"
        )
    return found | {"throughput": ThroughputConfig(data=data)}


def limits(
    data: SourceConfig,
    train: SourceConfig | None = None,
    templates: str = "simple",
    outside: SourceConfig | None = None,
) -> Suite:
    """What the seeds of the field warn of, on labelled pictures that somebody has; `outside`: pictures of none of their
    classes."""
    zeroshot = ZeroShotConfig(data=data, templates=templates)
    found: Suite = {
        "zeroshot": zeroshot,
        "calibration": CalibrationConfig(data=data, outside=outside, templates=templates),
        "typographic": TypographicConfig(data=data, templates=templates),
        "robustness": RobustnessConfig(of=zeroshot, severities=(3,)),
    }
    if train is not None:
        found["few_shot"] = FewShotConfig(train=train, test=data, templates=templates, methods=FEW)
    return found


def drawn_limits(count: int = 600) -> Suite:
    """The same on drawn scenes, whose truth is known: also fine classes, new combinations, shapes and styles, counts,
    and which word belongs to what."""

    def single(split: Any, label_of: Any = "shape", number: int = count) -> ScenesConfig:
        return ScenesConfig(
            split=split, objects=(1, 1), gives=("image", "label"), label_of=label_of, count=number, seed=1
        )

    found = limits(single("fresh"), single("train", number=2 * count), templates="drawn")
    for name, data in (
        ("fine", single("fresh", "combination")),
        ("new combinations", single("heldout", "combination")),
        ("new shapes", single("shapes")),
        ("new style", single("style")),
    ):
        found[name] = ZeroShotConfig(name=name.replace(" ", "_"), data=data, templates="drawn")
    found["choices"] = ChoicesConfig(data=ScenesConfig(split="fresh", gives=("image", "choices"), count=count, seed=1))
    return found
