"""`python -m pictura`, and what `torchrun -m pictura` starts."""

from pictura.cli import command

command()
