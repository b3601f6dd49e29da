"""Components of the Protein Data Bank: ligands, drugs, amino acids, in ideal coordinates.

From the chemical component dictionary (Westbrook et al. 2015, doi 10.1093/bioinformatics/btu789)
as the package `biotite` has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anylatent.core.support.disk_cache import cached
from anylatent.core.support.files import UserError
from anylatent.core.support.packages import package_file, package_version
from anylatent.modalities.molecule.data.base import MoleculeData
from anylatent.modalities.molecule.data.packed import Packed
from anylatent.modalities.molecule.data.skeletons import NEAREST, nearest, skeletons
from anylatent.modalities.molecule.elements import NUMBERS

if TYPE_CHECKING:
    from anylatent.modalities.molecule.files.binarycif import Array

ELEMENTS = ("H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Se", "Br", "I")
"""Elements of organic chemistry; components with any other are left out."""

_PURPOSE = "the data set 'components'"
_POSITION = [f"pdbx_model_Cartn_{axis}_ideal" for axis in "xyz"]


class Components(MoleculeData):
    """Organic components of `least` to `most` atoms, hydrogen included: 36,990 of 5 to 60.

    Larger and more varied than QM9: thirteen elements, and the formal charges of the dictionary.
    Split by the skeleton of heavy atoms, so that stereoisomers, protonation states and other near
    copies stay in one part. `hydrogens=False` leaves hydrogen atoms out.

    Components without ideal coordinates or with overlapping atoms are left out; `skipped` counts
    them by reason. Raises `MissingPackage` without `biotite`, UserError for wrong settings.
    """

    def __init__(
        self,
        hydrogens: bool = True,
        least: int = 5,
        most: int = 60,
        held_out: float = 0.1,
        seed: int = 0,
    ) -> None:
        if not 2 <= least <= most:
            raise UserError(f"least={least}, most={most}: sizes from 2 atoms, the larger last")
        self._source = {"made by": [f"biotite {package_version('biotite')}", "1"]}
        self.least, self.most, self.fraction, self.seed = least, most, held_out, seed
        key = {"least": least, "most": most, "held_out": held_out, "seed": seed, **self._source}
        super().__init__(key, hydrogens)
        package_file("biotite", "structure", "info", "components.bcif", purpose=_PURPOSE)

    @property
    def skipped(self) -> dict[str, int]:
        """How many components of the sizes asked for were left out, by reason."""
        sizes, reasons = self._tensors["skipped_sizes"], self._tensors["skipped_reasons"]
        inside = (sizes >= self.least) & (sizes <= self.most)
        return {
            "without ideal coordinates": int((inside & (reasons == 0)).sum()),
            f"with atoms nearer than {NEAREST} Å": int((inside & (reasons == 1)).sum()),
        }

    def parts(self) -> Mapping[str, Packed]:
        every = Packed.of_cache(self._tensors)
        inside = ((every.sizes >= self.least) & (every.sizes <= self.most)).nonzero()[:, 0]
        every, names = every.select(inside), self._tensors["skeletons"][inside]
        groups = [str(name) for name in names.tolist()]
        return every.split(groups, self.fraction, self.seed, "this choice of components")

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        return cached("components", self._source, _read)


def _read() -> dict[str, Tensor]:
    """All organic components, their skeletons, and what was left out."""
    import numpy as np

    from anylatent.modalities.molecule.files.binarycif import read_category

    path = package_file("biotite", "structure", "info", "components.bcif", purpose=_PURPOSE)
    names = ["comp_id", "type_symbol", "charge", *_POSITION]
    columns = read_category(path, "chem_comp_atom", names)
    z = _numbers(columns["type_symbol"])
    x = np.stack([columns[name] for name in _POSITION], 1)
    starts, sizes = _runs(columns["comp_id"])
    placed = np.minimum.reduceat(np.isfinite(x).all(1), starts)
    placed &= np.add.reduceat(np.abs(x).sum(1), starts) != 0
    organic = np.minimum.reduceat(z, starts) > 0
    kept = np.repeat(organic & placed, sizes)
    every = Packed(
        torch.from_numpy(x[kept]).float(),
        torch.from_numpy(z[kept]),
        torch.from_numpy(columns["charge"][kept]),
        torch.from_numpy(sizes[organic & placed]),
        [""] * int((organic & placed).sum()),
    )
    return _checked(every, torch.from_numpy(sizes[organic & ~placed]))


def _numbers(symbols: Array) -> Array:
    """Atomic numbers, 0 for elements that are not organic."""
    import numpy as np

    known = {symbol.upper(): NUMBERS[symbol] for symbol in ELEMENTS}
    return np.array([known.get(symbol, 0) for symbol in symbols.tolist()])


def _runs(names: Array) -> tuple[Array, Array]:
    """Where each component begins, and its number of atoms."""
    import numpy as np

    starts = np.flatnonzero(np.append(True, names[1:] != names[:-1]))
    return starts, np.diff(np.append(starts, len(names)))


def _checked(every: Packed, missing: Tensor) -> dict[str, Tensor]:
    """Without overlapping atoms; `missing` are the sizes of those that have no coordinates."""
    good = nearest(every) >= NEAREST
    overlapping = every.sizes[~good]
    reasons = [torch.zeros(len(missing)), torch.ones(len(overlapping))]
    return {
        **every.select(good.nonzero()[:, 0]).compact(),
        "skeletons": skeletons(every)[good],
        "skipped_sizes": torch.cat([missing, overlapping]),
        "skipped_reasons": torch.cat(reasons).to(torch.uint8),
    }
