"""The files of QM9 (Ramakrishnan et al. 2014, doi 10.1038/sdata.2014.22) in the package `qm9pack`.

They are read as atoms in space by one modality and as SMILES by another.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

from anylatent.core.support.packages import package_file
from anylatent.core.support.progress import track

FILES = ("qm9_part1.csv", "qm9_part2.csv", "qm9_part3.csv")
COUNT = 130_831
HARTREE = 27.211386245988  # eV


def check(purpose: str) -> None:
    """Raises MissingPackage unless all files are there."""
    for name in FILES:
        package_file("qm9pack", "data", name, purpose=purpose)


def rows(purpose: str, description: str) -> Iterator[dict[str, str]]:
    """The rows of the files in their order, with progress."""
    return track(_rows(purpose), description, COUNT)


def _rows(purpose: str) -> Iterator[dict[str, str]]:
    for name in FILES:
        path = package_file("qm9pack", "data", name, purpose=purpose)
        with open(path, encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)
