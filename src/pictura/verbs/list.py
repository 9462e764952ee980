"""`pictura list`."""

import argparse

from pictura.verbs.common import Answer, show

ABOUT = "What there is."
EXAMPLES = (
    "pictura list models",
    "pictura list recipes",
    "pictura list data",
    "pictura list prompts",
)


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("what", choices=("models", "recipes", "data", "prompts"), help="what to list")


def answer(a: argparse.Namespace) -> Answer:
    from pictura import facts

    rows = facts.catalogue(a.what)
    show(a, facts.TITLES[a.what], [(name, *facts.cells(row)) for name, row in rows.items()], facts.HEADS[a.what])
    return rows
