"""Pictura: train, adapt, measure and serve vision-language models on the hardware you have.

    model = pictura.load("runs/demo/model")
    model.classify(["cat.jpg"], ["a cat", "a dog"])

Importing the package imports nothing at all: torch arrives with the first verb that needs it.
"""

TYPE_CHECKING = False  # typing's own costs more to import than all of this
if TYPE_CHECKING:
    from pictura.evaluation.ready import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> object:
    if name == "load":
        from pictura.evaluation.ready import load

        return load
    raise AttributeError(f"module 'pictura' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
