"""`python -m pictura`, and what `torchrun -m pictura` starts."""

import sys

from pictura.cli import main

sys.exit(main())
