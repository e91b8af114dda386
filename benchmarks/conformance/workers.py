"""Each case in a worker process: one that crashes or hangs ends its case and not the run."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

Task = Callable[[int], Any]


class _Worker:
    """A forked process that answers one task after the other."""

    def __init__(self, task: Task) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, task), daemon=True)
        self._process.start()
        theirs.close()
        self.current: int | None = None
        self.deadline = 0.0

    def give(self, index: int, limit: float) -> None:
        self.current, self.deadline = index, time.monotonic() + limit
        self.pipe.send(index)

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(pipe: Connection, task: Task) -> None:
    while True:
        try:
            index = pipe.recv()
        except EOFError:
            return
        pipe.send(task(index))


def spread(task: Task, count: int, jobs: int, limit: float, lost: Callable[[int, str], Any]) -> Iterator[tuple[int, Any]]:
    """``task(i)`` for each i below ``count``, as they finish; ``lost(i, why)`` for one that died or took too long."""
    waiting = list(reversed(range(count)))
    workers: list[_Worker] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                workers.append(_Worker(task))
                workers[-1].give(waiting.pop(), limit)
            ready = wait([worker.pipe for worker in workers], timeout=0.5)
            for worker in list(workers):
                index = worker.current
                assert index is not None
                if worker.pipe in ready:
                    try:
                        yield index, worker.pipe.recv()
                    except (EOFError, ConnectionResetError):
                        yield index, lost(index, "the process died")
                        _drop(worker, workers)
                        continue
                    if waiting:
                        worker.give(waiting.pop(), limit)
                    else:
                        _drop(worker, workers)
                elif time.monotonic() > worker.deadline:
                    yield index, lost(index, f"it took more than {limit:g} s")
                    _drop(worker, workers)
    finally:
        for worker in list(workers):
            _drop(worker, workers)


def _drop(worker: _Worker, workers: Sequence[_Worker]) -> None:
    worker.end()
    workers.remove(worker)  # type: ignore[attr-defined]
