"""How far a model is that embeds many pictures or texts, for people to see."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pictura.distributed.ranks import is_main
from pictura.evaluation.embed import Embedder
from pictura.output.progress import PATIENCE, Progress


@contextmanager
def watched(embedder: Embedder) -> Iterator[None]:
    """Inside, whatever takes longer than two seconds to embed shows how far it is."""
    began, shown = time.perf_counter(), ExitStack()
    progress: Progress | None = None

    def tell(what: str, done: int, total: int) -> None:
        nonlocal began, progress
        if progress is None and time.perf_counter() - began >= PATIENCE:
            progress = shown.enter_context(Progress(total, unit=what, description=what, enabled=is_main()))
        if progress is not None:
            progress.update(done)
        if done >= total:  # of these; other pictures or texts may follow
            shown.close()
            began, progress = time.perf_counter(), None

    embedder.progress = tell
    try:
        yield
    finally:
        embedder.progress = None
        shown.close()
