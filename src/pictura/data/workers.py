"""Work done in other processes, with the results in the order of the jobs, and no way to hang.

Each worker has its own socket to this process and takes its turn, so which worker does which job never depends on time.
There are no locks shared between workers: one that is killed, even in the middle of a message, closes its socket, and
that is read at once as an error which says what it was at. (A shared queue would leave the others waiting for a lock,
and shared memory for pictures fails where /dev/shm is small, as in containers; sending a picture through a socket costs
a hundredth of decoding it.) A worker whose parent is killed reads the end of its socket, and leaves too.
"""

import atexit
import contextlib
import logging
import mmap
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any, TypeVar

log = logging.getLogger(__name__)

Job = TypeVar("Job")
Result = TypeVar("Result")
Note = Callable[[str], None]  # a worker says what it is at, for the message should it die there

PATIENCE = 60.0  # seconds without a result before the log says so
NOTE_BYTES = 512


def in_order(
    work: Callable[[Job, Note], Result], jobs: Iterable[Job], workers: int = 0, ahead: int = 2
) -> Iterator[Result]:
    """`work(job, note)` for each job, in order; with `workers` processes, each up to `ahead` jobs ahead of what is
    asked for.

    The processes start now, not at the first `next`, so that forking happens in the caller's thread; they end with the
    iterator. A `ValueError` in a worker arrives as one; anything else, and a killed worker, as a `RuntimeError` that
    says where.
    """
    if workers == 0:
        return (work(job, _no_note) for job in jobs)
    pool: list[_Worker] = []
    try:
        for number in range(workers):
            pool.append(_Worker(work, number, [worker.socket for worker in pool]))
    except BaseException:
        _stop(pool)
        raise
    results = _results(pool, iter(jobs), ahead)
    next(results)  # hands out the first jobs; and a generator that has begun cleans up when it is dropped
    return results


def _results(pool: "list[_Worker]", jobs: Iterator[Any], ahead: int) -> Iterator[Any]:
    turns: deque[_Worker] = deque()

    def give(worker: _Worker) -> None:
        for job in islice(jobs, 1):
            worker.give(job)
            turns.append(worker)

    try:
        for worker in pool * ahead:
            give(worker)
        yield None
        while turns:
            worker = turns.popleft()
            result = worker.take()
            give(worker)
            yield result
    finally:
        _stop(pool)


def _stop(pool: "list[_Worker]") -> None:
    for worker in pool:
        worker.dismiss()
    for worker in pool:
        worker.bury()


class _Worker:
    """This process's end of one worker."""

    def __init__(self, work: Callable[[Any, Note], Any], number: int, others: list[Connection]) -> None:
        fork = "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"
        self.number = number
        self.note = mmap.mmap(-1, NOTE_BYTES) if fork else None  # anonymous memory: only a fork shares it
        self.socket, theirs = multiprocessing.Pipe()
        context: Any = multiprocessing.get_context("fork" if fork else "spawn")
        inherited = [*others, self.socket] if fork else []
        with _quiet_tokenizers():
            self.process = context.Process(target=_serve, args=(work, theirs, self.note, inherited), daemon=True)
            self.process.start()
        theirs.close()
        atexit.register(self.close)  # later registered is earlier called: before multiprocessing waits for its children

    def give(self, job: Any) -> None:
        try:
            self.socket.send(job)
        except OSError:
            raise RuntimeError(self._epitaph()) from None

    def take(self) -> Any:
        try:
            waited = 0.0
            while not self.socket.poll(PATIENCE):
                waited += PATIENCE
                log.warning("loader worker %d has been busy for %.0f s%s", self.number, waited, self._place())
            done, result = _receive(self.socket)
        except (EOFError, OSError):
            raise RuntimeError(self._epitaph()) from None
        if done:
            return result
        mistake, said, where = result
        trace = RuntimeError(f"in loader worker {self.number}:\n{where}")
        raise (
            ValueError(said) if mistake else RuntimeError(f"{said} (in loader worker {self.number}{self._place()})")
        ) from trace

    def dismiss(self) -> None:
        """Ask it to leave, whatever it is doing."""
        with contextlib.suppress(OSError, ValueError):
            self.socket.send(None)
        self.socket.close()

    def bury(self) -> None:
        """Wait until it has left; end it if it does not."""
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        atexit.unregister(self.close)

    def close(self) -> None:
        self.dismiss()
        self.bury()

    def _place(self) -> str:
        said = self.note[:].rstrip(b"\0").decode(errors="replace") if self.note is not None else ""
        return f" at {said}" if said else ""

    def _epitaph(self) -> str:
        self.process.join(timeout=60)
        code = self.process.exitcode
        who = f"loader worker {self.number} (process {self.process.pid})"
        if code == -signal.SIGKILL:
            return (
                f"{who} was killed{self._place()}, most likely because the machine ran out of memory: "
                "lower loader.workers, loader.prefetch or loader.batch_size"
            )
        ended = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
        return f"{who} ended {ended}{self._place()}: leave that sample out, or set loader.workers=0 to see the failure"


def _serve(
    work: Callable[[Any, Note], Any], socket: Connection, place: mmap.mmap | None, inherited: list[Connection]
) -> None:
    """A worker's whole life."""
    for other in inherited:
        other.close()  # or the end of the parent would not be seen here
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C, or SIGTERM to the group: our parent decides what follows
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # this process is one of several
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read_jobs, args=(socket, jobs), daemon=True).start()

    def note(text: str) -> None:
        if place is not None:
            place[:] = text.encode(errors="replace")[:NOTE_BYTES].ljust(NOTE_BYTES, b"\0")

    while True:
        job = jobs.get()
        try:
            message = (True, work(job, note))
        except Exception as error:  # noqa: BLE001  (it goes to the parent with its traceback)
            message = (
                False,
                (isinstance(error, ValueError), str(error) or type(error).__name__, traceback.format_exc()),
            )
        try:
            _send(socket, message)
        except OSError:  # the parent has gone
            os._exit(0)


def _read_jobs(socket: Connection, jobs: "queue.SimpleQueue[Any]") -> None:
    """Takes jobs off the socket at once, so that neither side ever waits to write while the other does."""
    try:
        while (job := socket.recv()) is not None:
            jobs.put(job)
    except (EOFError, OSError):
        pass
    os._exit(0)


def _send(socket: Connection, message: Any) -> None:
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    socket.send((head, [view.nbytes for view in views]))
    for view in views:
        socket.send_bytes(view)


def _receive(socket: Connection) -> Any:
    head, sizes = socket.recv()
    buffers = [bytearray(size) for size in sizes]
    for buffer in buffers:
        socket.recv_bytes_into(buffer)
    return pickle.loads(head, buffers=buffers)


def _no_note(text: str) -> None:
    pass


@contextlib.contextmanager
def _quiet_tokenizers() -> Iterator[None]:
    """Without this word, `tokenizers` warns at a fork that it will do in the child what we want there anyhow."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = before or "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
