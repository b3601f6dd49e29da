"""Alternate locations in a crystal structure: of those that exclude one another, one is taken.

Letters exclude one another within a residue if they have an atom of one name, or are of different
residues in one place. Of such a set the one with the largest sum of occupancies is taken, ties to
the first by alphabet. An atom without alternates is always taken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple


class Site(NamedTuple):
    """An atom of a model: where it belongs, its name there, and its letter ("" for none)."""

    place: Hashable
    residue: str
    atom: str
    letter: str
    occupancy: float


def taken(sites: Sequence[Site]) -> list[int]:
    """Which of the sites are atoms of the one molecule, in their order."""
    lettered = {(site.place, site.residue, site.atom) for site in sites if site.letter}
    kept = [not _competes(site, lettered) for site in sites]
    groups = defaultdict[Hashable, list[int]](list)
    for row, site in enumerate(sites):
        if not kept[row]:
            groups[site.place].append(row)
    for rows in groups.values():
        best = _best([sites[row] for row in rows])
        for row in rows:
            kept[row] = sites[row].letter in best
    return [row for row, good in enumerate(kept) if good]


def _competes(site: Site, lettered: set[tuple[Hashable, str, str]]) -> bool:
    """Whether it has a letter, or stands without one beside others that do."""
    return bool(site.letter) or (site.place, site.residue, site.atom) in lettered


def _best(sites: Sequence[Site]) -> set[str]:
    """The letters to take among those of one place."""
    names, sums = defaultdict[str, set[str]](set), defaultdict[str, float](float)
    residues = defaultdict[str, set[str]](set)
    for site in sites:
        names[site.letter].add(f"{site.residue} {site.atom}")
        residues[site.letter].add(site.residue)
        sums[site.letter] += site.occupancy
    sets: list[set[str]] = []
    for letter in sorted(sums):
        rivals = [
            other
            for other in sets
            if any(names[letter] & names[o] or residues[letter] != residues[o] for o in other)
        ]
        sets = [other for other in sets if other not in rivals] + [{letter}.union(*rivals)]
    return {min(rivals, key=lambda letter: (-round(sums[letter], 6), letter)) for rivals in sets}
