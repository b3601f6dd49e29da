"""Logs for TensorBoard that end no training, whatever becomes of the disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger


class Events(TensorBoardLogger):
    """The scalars of a stage that goes on from a step: what a killed process wrote after it goes. A
    file that can't be written is a warning, once."""

    broken = False

    def __init__(self, folder: Path, stage: str, step: int) -> None:
        if not step:
            for path in (folder / stage).glob("events.out.tfevents.*"):
                path.unlink()
        super().__init__(folder, name="", version=stage, purge_step=step + 1 if step else None)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        with self._kept():
            super().log_metrics(dict(metrics), step)

    def save(self) -> None:
        with self._kept():
            super().save()

    def finalize(self, status: str) -> None:
        with self._kept():
            super().finalize(status)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # Lightning makes the one of the other
            if not isinstance(error.__cause__ or error, OSError):
                raise
            if not self.broken:
                print(
                    f"warning: TensorBoard's log: {error.__cause__ or error}; training goes on",
                    flush=True,
                )
            self.broken = True


@contextmanager
def quiet_threads() -> Iterator[None]:
    """Errors of files in other threads, such as the one that writes events, are told by whoever
    uses them next, and print no traceback of their own."""
    usual = threading.excepthook

    def told(args: threading.ExceptHookArgs) -> None:
        if not issubclass(args.exc_type, OSError):
            usual(args)

    threading.excepthook = told
    try:
        yield
    finally:
        threading.excepthook = usual
