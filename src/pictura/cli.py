"""The command `pictura`: its verbs are in `verbs/`, one file each.

Exit codes: 0 done; 2 a mistake that the user can mend, told in one line; 1 a bug of ours, with its traceback; 130 and
143 stopped by Ctrl-C and SIGTERM.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from pictura import __version__
from pictura.training.signals import Stopped
from pictura.verbs import VERBS
from pictura.verbs.common import is_main

ENVIRONMENT = {"THP_MEM_ALLOC_ENABLE": "1"}  # torch's large tensors in pages of 2 MiB, which are cheaper to come by


def command() -> NoReturn:
    """`pictura`, as a shell or `torchrun` starts it."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    code = main()
    if "RANK" in os.environ:
        from pictura.distributed.ranks import leave

        leave(code)
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit code."""
    arguments = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        answer = arguments.verb(arguments)
    except (ValueError, OSError, ArithmeticError) as error:
        if not mendable(error):
            raise
        from pictura.config.messages import explain

        return complain(arguments, explain(error), 2)
    except Stopped as stopped:
        return complain(arguments, str(stopped), stopped.code) if is_main() else stopped.code
    except KeyboardInterrupt:
        return complain(arguments, "interrupted", 130)
    if arguments.json and is_main():
        sys.stdout.write(json.dumps(answer, allow_nan=False) + "\n")
    return 0


def mendable(error: BaseException) -> bool:
    """Whether the user can mend it: trouble with files, or what a `raise` in this package says in words.

    A ValueError or ZeroDivisionError that Python, torch or numpy finds is a bug of ours.
    """
    if isinstance(error, OSError):
        return True
    import dis

    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    code = trace.tb_frame.f_code
    ours = Path(code.co_filename).is_relative_to(Path(__file__).parent)
    return ours and dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def complain(arguments: argparse.Namespace, words: str, code: int) -> int:
    """One line on stderr, whichever process says it."""
    process = "" if is_main() else f" (process {os.environ['RANK']})"
    sys.stderr.write(f"pictura {arguments.name}{process}: {words}\n")
    return code


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} -h\n")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of one verb. Words that argparse leaves over when options stand between them find their list."""
    top = parser()
    arguments, over = top.parse_known_args(argv)
    if over and (arguments.rest is None or any(word.startswith("-") for word in over)):
        top.error(f"{arguments.name} does not know {' '.join(over)}")
    if over:
        getattr(arguments, arguments.rest).extend(over)
    return arguments


def parser() -> argparse.ArgumentParser:
    """All verbs, their arguments and examples."""
    top = Parser(
        "pictura",
        description="Train, adapt, measure and serve vision-language models on the hardware you have.",
        epilog="example: pictura demo",
    )
    top.add_argument("--version", action="version", version=f"pictura {__version__}")
    verbs = top.add_subparsers(dest="name", required=True, metavar="verb")

    for name in VERBS:
        verb = import_module(f"pictura.verbs.{name}")
        p: argparse.ArgumentParser = verbs.add_parser(
            name,
            help=verb.ABOUT,
            description=verb.ABOUT,
            epilog="\n  ".join(["examples:" if len(verb.EXAMPLES) > 1 else "example:", *verb.EXAMPLES]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        p.add_argument("--json", action="store_true", help="one JSON object on stdout, everything else on stderr")
        p.set_defaults(verb=verb.answer, rest=None)
        verb.arguments(p)
    return top
