"""Drawings, which are no geometry, told from molecules that are flat.

All atoms have one z. It is a drawing where the file says so, and where all atoms are in one
place. Else, unless they are on a line, where one of these shows it: a carbon, nitrogen or silicon
with four neighbours; wedged bonds; bonds of lengths that their atoms don't have, or all of one
length though they are of several kinds; a carbon that the lengths of its bonds call tetrahedral
with three neighbours, or with two at 120 degrees; a hydrogen atom without a neighbour. Where the
file has no bonds, or not their orders, there must be more than three heavy atoms, and the nearest
neighbour of each at a wrong length.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from anylatent.modalities.molecule.files.bonded import RADII, angles, near
from anylatent.modalities.molecule.files.rdkit_text import lacks, sanitised
from anylatent.modalities.molecule.files.records import Parsed

if TYPE_CHECKING:
    from rdkit.Chem import Bond

_UNKNOWN = 0.0
_LEAST, _MOST = 0.7, 1.3  # of the sum of covalent radii, for any bond
_LONGEST = {2.0: 0.97, 3.0: 0.87}  # by the order that the file says, between C, N and O
_ORGANIC = {6, 7, 8}
_TETRAHEDRAL = 0.97  # bonds of a tetrahedral carbon are longer
_SHORTEST_TETRAHEDRAL = 0.93  # where the file's bonds say that it is one
_WIDE = (118.5, 150.0)  # degrees, wider than a tetrahedral carbon has them
_EQUAL = 1.001
_SMALL = 3  # heavy atoms, which always lie in a plane
_WEDGE = "_MolFileBondStereo"


class _Bond(NamedTuple):
    """`order`: 1.5 in aromatic rings; `written`: the file's own, by which these alternate."""

    atoms: tuple[int, int]
    numbers: tuple[int, int]
    order: float
    written: float
    ratio: float
    length: float
    tetrahedral: bool


def is_drawing(parsed: Parsed) -> bool:
    """Whether the positions of a record are those of a drawing."""
    molecule = parsed.molecule
    if len(molecule) == 1 or bool((molecule.x[:, 2] != molecule.x[0, 2]).any()):
        return False
    if parsed.drawn or not bool((molecule.x != molecule.x[0]).any()):
        return True
    bonds = _bonds(parsed)
    small = int((molecule.z > 1).sum()) <= _SMALL
    if _is_line(molecule.x) or (small and all(bond.order == _UNKNOWN for bond in bonds)):
        return False
    wrong = _is_wedged(parsed) or _has_wrong_lengths(bonds)
    return wrong or _has_wrong_shape(parsed, bonds, small)


def _is_line(x: Tensor) -> bool:
    arms = (x - x[0]).double()
    far = arms[arms.norm(dim=1).argmax()]
    across = arms[:, 0] * far[1] - arms[:, 1] * far[0]
    return bool((across.abs() < 1e-6 * far.dot(far)).all())


def _is_wedged(parsed: Parsed) -> bool:
    bonds = [] if parsed.mol is None else parsed.mol.GetBonds()
    marks = (bond.GetPropsAsDict().get(_WEDGE) for bond in bonds)
    return any(str(mark) in "1456" for mark in marks if mark is not None)


def _bonds(parsed: Parsed) -> list[_Bond]:
    """The file's bonds, without orders where it may lack these, else those by distance."""
    if parsed.mol is None or not parsed.mol.GetNumBonds():
        pairs, _ = near(parsed.molecule)
        return [_bond(parsed, i, j) for i, j in pairs.tolist()]
    whole = sanitised(parsed.mol)
    known = whole is not None and not (parsed.complete and lacks(whole))
    mol = whole if whole is not None and known else parsed.mol
    return [
        _bond(parsed, *_ends(bond), bond.GetBondTypeAsDouble(), raw.GetBondTypeAsDouble(), bond)
        if known
        else _bond(parsed, *_ends(bond))
        for bond, raw in zip(mol.GetBonds(), parsed.mol.GetBonds(), strict=True)
    ]


def _ends(bond: Bond) -> tuple[int, int]:
    return bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()


def _bond(
    parsed: Parsed,
    i: int,
    j: int,
    order: float = _UNKNOWN,
    written: float = _UNKNOWN,
    bond: Bond | None = None,
) -> _Bond:
    ends = [] if bond is None else [bond.GetBeginAtom(), bond.GetEndAtom()]
    tetrahedral = any(a.GetAtomicNum() == 6 and str(a.GetHybridization()) == "SP3" for a in ends)
    z, x = parsed.molecule.z, parsed.molecule.x
    length = float((x[i] - x[j]).norm())
    ratio = length / float(RADII[z[i]] + RADII[z[j]])
    first, second = sorted((int(z[i]), int(z[j])))
    return _Bond((i, j), (first, second), order, written, ratio, length, tetrahedral)


def _has_wrong_lengths(bonds: list[_Bond]) -> bool:
    kinds = {(bond.numbers, bond.order) for bond in bonds}
    lengths = [bond.length for bond in bonds]
    known = any(bond.order != _UNKNOWN for bond in bonds)
    equal = known and len(kinds) > 1 and max(lengths) < _EQUAL * min(lengths)
    if known:
        return equal or any(_is_wrong(bond) for bond in bonds)
    nearest: dict[int, _Bond] = {}
    for bond in sorted(bonds, key=lambda bond: -bond.ratio):
        nearest |= dict.fromkeys(bond.atoms, bond)
    return bool(nearest) and all(_is_wrong(bond) for bond in nearest.values())


def _is_wrong(bond: _Bond) -> bool:
    least, most = _LEAST, _MOST
    if set(bond.numbers) <= _ORGANIC:
        most = _LONGEST.get(bond.written, most)
        least = _SHORTEST_TETRAHEDRAL if bond.tetrahedral and bond.order == 1 else least
    return not least < bond.ratio < most


def _has_wrong_shape(parsed: Parsed, bonds: list[_Bond], small: bool) -> bool:
    around: dict[int, list[int]] = {atom: [] for atom in range(len(parsed.molecule))}
    short = set[int]()
    for bond in bonds:
        i, j = bond.atoms
        around[i].append(j)
        around[j].append(i)
        short |= set(bond.atoms) if bond.ratio < _TETRAHEDRAL else set()
    z: Tensor = parsed.molecule.z
    alone = (z[atom] == 1 and not others for atom, others in around.items())
    shapes = (
        len(others) >= 4
        or (
            z[atom] == 6
            and not small
            and atom not in short
            and _is_impossible(parsed, atom, others)
        )
        for atom, others in around.items()
        if int(z[atom]) in (6, 7, 14)
    )
    return any(bool(sign) for sign in chain(alone, shapes))


def _is_impossible(parsed: Parsed, atom: int, others: list[int]) -> bool:
    if len(others) == 2:
        return _WIDE[0] < angles(parsed.molecule.x.tolist(), atom, others)[0] < _WIDE[1]
    return len(others) == 3
