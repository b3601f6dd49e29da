"""Progress of long work: a bar on a terminal, silence elsewhere but for a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


@contextmanager
def bar(description: str, total: int, seconds: float = 20.0) -> Iterator[Callable[..., None]]:
    """Yields a function to call after each piece of work, or with how many were done."""
    done, start, last = 0, time.monotonic(), time.monotonic()
    shown: Any = None
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        shown = Progress(console=Console(stderr=True), transient=True)
        task = shown.add_task(description, total=total)
        shown.start()

    def advance(pieces: int = 1) -> None:
        nonlocal done, last
        done += pieces
        if shown is not None:
            shown.advance(task, pieces)
        elif time.monotonic() - last > seconds:
            last = time.monotonic()
            left = (last - start) / done * (total - done)
            print(f"{description} {done}/{total}, {left:.0f} s left", flush=True)

    try:
        yield advance
    finally:
        if shown is not None:
            shown.stop()


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """The items, with progress."""
    with bar(description, total) as advance:
        for item in items:
            yield item
            advance()
