"""`pictura plan`."""

import argparse

from pictura.verbs.common import Answer, overridable, show

ABOUT = "Parameters, FLOPs, memory and time of a recipe, before spending them."
EXAMPLES = ("pictura plan demo",)


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("recipe", help="a recipe's name or a .yaml file")
    overridable(p)


def answer(a: argparse.Namespace) -> Answer:
    from pictura import facts
    from pictura.recipe import read_recipe

    planned = facts.plan(read_recipe(a.recipe, a.overrides))
    show(a, f"{a.recipe}, on this machine", facts.in_words(planned))
    return planned
