"""Fragments: molecules that samples must contain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anylatent.core.latents import Latent
from anylatent.core.modality import Batch, Given, Item, Outputs, asked_of
from anylatent.core.support.files import UserError
from anylatent.core.support.typed import as_typed
from anylatent.modalities.molecule.batches import collate, unpacked
from anylatent.modalities.molecule.elements import indices
from anylatent.modalities.molecule.molecule import Molecule
from anylatent.modalities.molecule.molecules import Molecules


class Fragments(Given):
    """`cond.fragment`: a file of a molecule whose atoms each sample has, in their shape, as its
    first atoms. Those of `elements` and `charges` can be read."""

    asks = ("fragment",)
    strength = 3.0  # of 0, 1, 3, 6 and 12; benchmarks/results/molecule.md

    def __init__(self, elements: Sequence[str], charges: Sequence[int]) -> None:
        self.elements, self.charges = tuple(elements), tuple(charges)

    def known(self, blank: Latent, cond: Mapping[str, Any]) -> Batch | None:
        """The molecules of the files `cond["fragment"]`, one for each sample."""
        items = self.read(blank.batch, cond)
        return None if items is None else collate(items)

    def complete(self, outputs: Outputs, known: Batch) -> Molecules:
        """The fragment's own atoms, moved as a whole to where they were restored."""
        assert isinstance(outputs, Molecules)
        pairs = zip(outputs, unpacked(known, self.elements), strict=True)
        return outputs.like(_with(made, piece, torch.arange(len(piece))) for made, piece in pairs)

    def put(self, outputs: Outputs, data: Batch, given: Tensor) -> Molecules:
        """The given atoms of each as those of a fragment."""
        assert isinstance(outputs, Molecules)
        found = zip(outputs, unpacked(data, self.elements), given.cpu(), strict=True)
        return outputs.like(
            _with(made, Molecule(whole.x[at], whole.z[at], whole.charge[at]), at)
            for made, whole, row in found
            for at in (row.nonzero()[:, 0],)
        )

    def read(self, samples: int, cond: Mapping[str, Any]) -> list[Item] | None:
        """The fragment of each sample, None where none is asked for."""
        if cond.get("fragment") is None:
            return None
        paths = [as_typed(path) for path in asked_of(cond, "fragment", samples)]
        if any(not isinstance(path, (str, Path)) for path in paths):
            raise UserError(
                "cond.fragment: the path of a .sdf, .mol, .xyz, .pdb or .cif file is wanted"
            )
        read = {path: self._item(Path(path)) for path in dict.fromkeys(paths)}
        return [read[path] for path in paths]

    def _item(self, path: Path) -> Item:
        from anylatent.modalities.molecule.data.skeletons import NEAREST

        molecule = _alone(path)
        if bool((torch.pdist(molecule.x) < NEAREST).any()):
            raise UserError(f"cond.fragment={path} has two atoms closer than {NEAREST} Å")
        charges = [charge for charge in molecule.charge.tolist() if charge not in self.charges]
        if charges:
            raise UserError(
                f"cond.fragment={path} has an atom of charge {charges[0]}; this model knows "
                f"{', '.join(map(str, self.charges))}"
            )
        return {
            "x": molecule.x - molecule.x.mean(0),
            "element": indices(molecule.z, self.elements),
            "charge": molecule.charge,
            "atoms": len(molecule),
        }


def _with(made: Molecule, piece: Molecule, at: Tensor) -> Molecule:
    """A molecule whose atoms `at` (n,) are those of the piece, moved as a whole to their place."""
    if not len(at):
        return made
    x, z, charge = made.x.clone(), made.z.clone(), made.charge.clone()
    x[at] = piece.x + (made.x[at] - piece.x).mean(0)
    z[at], charge[at] = piece.z, piece.charge
    return Molecule(x, z, charge)


def _alone(path: Path) -> Molecule:
    """The only molecule of a file."""
    from anylatent.modalities.molecule.files import read_molecules

    try:
        records, problems = read_molecules(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cond.fragment={path} can't be read: {error}") from error
    if len(records) > 1 or problems:
        raise UserError(
            f"cond.fragment={path} has {len(records)} molecules"
            + "".join(f"; {problem}" for problem in problems[:3])
            + ": a file of one molecule is wanted"
        )
    return replace(records[0].molecule, x=records[0].molecule.x.float())
