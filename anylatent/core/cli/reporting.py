"""What commands that report on a run have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from anylatent.core.runs import RunDirectory
from anylatent.core.runs.records import described_by, writing


class Told(Protocol):
    """What such a command is told, among other things."""

    @property
    def run(self) -> str: ...


class Report(Protocol):
    """What it makes of that, and where it writes."""

    folder: Path


Config = TypeVar("Config", bound=Told)
Made = TypeVar("Made", bound=Report)


@contextmanager
def reporting(kind: Callable[[Config], Made], config: Config) -> Iterator[Made]:
    """Makes the report, of a run that may describe anything, and owns the run while the block
    writes into it."""
    with described_by(RunDirectory(Path(config.run)).config_path):
        report = kind(config)
    with writing(Path(config.run), report.folder):
        yield report
