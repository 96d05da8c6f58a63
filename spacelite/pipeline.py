"""Work in stages that overlap: while one item is computed, the next is prepared and the one before
is written."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

Result = TypeVar("Result")


class Clock:
    """How long each stage has worked, of a single thread or of several."""

    def __init__(self) -> None:
        self._busy: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def measure(self, stage: str, threads: int = 1) -> Iterator[None]:
        """Add the time that the block takes. Each of the threads that share the stage's work adds
        its part, so that a stage in which all work all the time is as long as on a wall clock."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, started, time.perf_counter(), threads)

    def add(self, stage: str, started: float, stopped: float, threads: int = 1) -> None:
        """Add a span of time, in seconds of `time.perf_counter`."""
        with self._lock:
            self._busy[stage] = self._busy.get(stage, 0.0) + (stopped - started) / threads

    @property
    def busy(self) -> dict[str, float]:
        """The seconds of each stage, the longest first."""
        return dict(sorted(self._busy.items(), key=lambda pair: -pair[1]))


@dataclass(frozen=True)
class Stage:
    """One step of the work on every item."""

    name: str  # on the clock
    work: Callable[[Any], Any]  # what is done with an item; returns what the next stage gets
    threads: int = 1  # how many items are worked on at once
    begin: Callable[[], None] | None = None  # called once in each thread, before the first item


def run(
    items: Iterable[Any], stages: Sequence[Stage], *, ahead: int, clock: Clock
) -> Generator[Any]:
    """Send items through stages, each of which has its own threads.

    Whoever reads the results is one more stage: what it does with a result overlaps with the work
    on the next items. An exception of a stage is raised where the item's result would come, once
    all threads have ended; when reading stops before, they end after the items that they work on,
    and `reading` waits for that. At most `ahead` items are on the way at once, so that memory stays
    bounded.
    """
    stopped = threading.Event()
    pools = [
        ThreadPoolExecutor(stage.threads, stage.name, initializer=stage.begin) for stage in stages
    ]

    def step(stage: Stage, before: Future[Any]) -> Any:
        # Threads of a pool take items in order, so whoever waits here waits for an earlier stage.
        value = before.result()
        if stopped.is_set():
            raise CancelledError
        with clock.measure(stage.name, stage.threads):
            return stage.work(value)

    def submit(item: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(item)
        for stage, pool in zip(stages, pools, strict=True):
            future = pool.submit(step, stage, future)
        return future

    waiting: deque[Future[Any]] = deque()
    collected = False
    try:
        for item in items:
            waiting.append(submit(item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except GeneratorExit:
        # Perhaps of the garbage collector, in the middle of the start of a thread: to wait for
        # others there would be to wait for ever.
        collected = True
        raise
    finally:
        stopped.set()
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in pools:
            pool.shutdown(wait=not collected)


@contextmanager
def reading(results: Generator[Result]) -> Iterator[Iterator[Result]]:
    """Read results of `run`: an exception of the reader, such as Ctrl-C, ends all threads before it
    is raised. Otherwise they would work on for as long as a traceback holds the results."""
    try:
        yield results
    except BaseException as error:
        results.throw(error)  # which raises it again
        raise
