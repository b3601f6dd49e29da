"""QM9 (Ramakrishnan et al. 2014, doi 10.1038/sdata.2014.22) from the package `qm9pack`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain

import torch
from torch import Tensor

from anylatent.core.support.disk_cache import cached
from anylatent.core.support.files import UserError
from anylatent.core.support.packages import package_version
from anylatent.modalities.molecule.data.base import MoleculeData, MoleculeSet
from anylatent.modalities.molecule.data.packed import Packed
from anylatent.modalities.molecule.elements import NUMBERS
from anylatent.modalities.shared import qm9

UNITS = {
    "alpha": "Bohr^3",
    "gap": "eV",
    "homo": "eV",
    "lumo": "eV",
    "mu": "Debye",
    "cv": "cal/(mol K)",
}
"""Isotropic polarisability, gap and energies of the frontier orbitals, dipole moment, heat capacity
at 298.15 K."""

_COLUMNS = {
    "alpha": ("Polarizability_bohr3", 1.0),
    "gap": ("HOMO_LUMO_gap_au", qm9.HARTREE),
    "homo": ("HOMO_au", qm9.HARTREE),
    "lumo": ("LUMO_au", qm9.HARTREE),
    "mu": ("Dipole_debye", 1.0),
    "cv": ("Heatcapacity_Cv_cal_mol_K", 1.0),
}
_PURPOSE = "the data set 'qm9'"
_TRAIN, _HELD_OUT = 100_000, 13_083
_SPLIT = 4141822872
_ATOM = re.compile(r"\[[^\]]*\]|[CNOFcno]")
_BRACKET = re.compile(r"\[([A-Za-z])[^+-]*([+-]?)\]")
_PUBLISHED = {
    "EDM (published)": (0.987, 0.820, 0.919, 0.907),
    "GeoLDM (published)": (0.989, 0.894, 0.938, 0.927),
}
_FIGURES = ("atom_stability", "molecule_stability", "valid", "valid_and_unique")


class Qm9(MoleculeData):
    """130,831 molecules of up to 9 atoms of C, N, O and F, with hydrogens up to 29, by DFT.

    The usual split: 100,000 to learn from, 17,748 for `validation()`, 13,083 held out, by one
    fixed permutation. `hydrogens=False` leaves hydrogen atoms out. `half` takes the "first" or the
    "second" half of the training part, so that a property regressor and a generator see different
    molecules (2203.17003); `limit` keeps only the first so many training molecules (0: all).
    `properties` are columns of the items: alpha (Bohr^3), gap, homo, lumo (eV), mu (Debye),
    cv (cal/(mol K)). Formal charges are read off the SMILES.

    Raises `MissingPackage` without `qm9pack`, UserError for wrong settings.
    """

    def __init__(
        self,
        hydrogens: bool = True,
        half: str = "",
        properties: tuple[str, ...] = ("alpha", "gap", "homo", "lumo", "mu", "cv"),
        limit: int = 0,
    ) -> None:
        unknown = [name for name in properties if name not in UNITS]
        if unknown:
            raise UserError(f"qm9 has no property {', '.join(unknown)}; it has {', '.join(UNITS)}")
        if half not in ("", "first", "second"):
            raise UserError(f"half={half}: allowed are 'first', 'second' and '' for all")
        if limit < 0:
            raise UserError(f"limit={limit}: a number of molecules is wanted, 0 for all")
        self._source = {"made by": [f"qm9pack {package_version('qm9pack')}", "3"]}
        key = {"half": half, "properties": list(properties), "limit": limit, **self._source}
        super().__init__(key, hydrogens, {name: UNITS[name] for name in properties})
        self.half, self.limit = half, limit
        if hydrogens:
            rows = _PUBLISHED.items()
            self.published = {k: dict(zip(_FIGURES, row, strict=True)) for k, row in rows}
        qm9.check(_PURPOSE)

    def validation(self) -> MoleculeSet:
        """The part to choose settings by."""
        return self.part("validation")

    def judged_by(self) -> MoleculeSet:
        """The other half of the training part, as in the paper; the validation part without one."""
        return self.part("other" if self.half else "validation")

    def parts(self) -> Mapping[str, Packed]:
        every = Packed.of_cache(cached("qm9", self._source, _read))
        columns = {name: every.properties[name] for name in self.units}
        every = Packed(every.x, every.z, every.charge, every.sizes, every.smiles, columns)
        order = _order(len(every))
        halves = {"first": order[: _TRAIN // 2], "second": order[_TRAIN // 2 : _TRAIN]}
        train = halves.pop(self.half, order[:_TRAIN])
        rows = {
            "train": train[: self.limit or len(train)],
            "validation": order[_TRAIN:-_HELD_OUT],
            "held_out": order[-_HELD_OUT:],
        }
        if self.half:
            (rows["other"],) = halves.values()
        return {name: every.select(index) for name, index in rows.items()}


def _order(count: int) -> Tensor:
    """A permutation of the molecules that never changes: who is held out hangs on it."""
    generator = torch.Generator().manual_seed(_SPLIT)
    return torch.empty(count, dtype=torch.float64).uniform_(generator=generator).argsort()


def _read() -> dict[str, Tensor]:
    """All molecules in the order of the files, as the tensors of a cache."""
    import numpy as np

    x, z, charge, smiles, properties = [], [], [], [], []
    for row in qm9.rows(_PURPOSE, "reading QM9"):
        flat = row["XYZ_Ang"].replace("[", "").replace("]", "")
        symbols = row["Elements"][2:-2].split("','")
        x.append(np.fromstring(flat, dtype=np.float64, sep=","))
        z.append([NUMBERS[symbol] for symbol in symbols])
        charge.append(formal_charges(row["SMILES"], symbols))
        smiles.append(row["SMILES"])
        properties.append([float(row[column]) * unit for column, unit in _COLUMNS.values()])
    columns = dict(zip(UNITS, torch.tensor(properties).unbind(1), strict=True))
    return Packed(
        torch.from_numpy(np.concatenate(x)).float().view(-1, 3),
        torch.tensor(list(chain.from_iterable(z)), dtype=torch.uint8),
        torch.tensor(list(chain.from_iterable(charge))),
        torch.tensor([len(row) for row in z]),
        smiles,
        columns,
    ).compact()


def formal_charges(smiles: str, symbols: list[str]) -> list[int]:
    """The formal charge of each atom, by a SMILES whose heavy atoms come in the same order.

    In QM9 this holds for all but four molecules, none of which is charged; 0 for those. A nitro
    group written with five bonds, N(=O)=O, has those of [N+]([O-])=O.
    """
    smiles = smiles.replace("N(=O)=O", "[N+]([O-])=O").replace("O=N(=O)", "[O-][N+](=O)")
    if "+" not in smiles:  # all molecules are neutral: without a cation there is no anion
        return [0] * len(symbols)
    elements, charges = [], []
    for atom in _ATOM.findall(smiles):
        found = _BRACKET.match(atom)
        element, sign = found.groups() if found else (atom, "")
        elements.append(element.upper())
        charges.append({"+": 1, "-": -1, "": 0}[sign])
    heavy = [place for place, symbol in enumerate(symbols) if symbol != "H"]
    if elements != [symbols[place] for place in heavy]:
        return [0] * len(symbols)
    by_place = dict(zip(heavy, charges, strict=True))
    return [by_place.get(place, 0) for place in range(len(symbols))]
