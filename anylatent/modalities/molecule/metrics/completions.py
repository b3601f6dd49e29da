"""How molecules are completed from some of their atoms, beside the molecules and beside chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from anylatent.core.modality import Data, Metric, Outputs
from anylatent.core.support.progress import track
from anylatent.modalities.molecule.metrics.chemistry import NEED_HYDROGENS, judge, shares
from anylatent.modalities.molecule.metrics.geometry import squares
from anylatent.modalities.molecule.metrics.references import cloud, molecules_of
from anylatent.modalities.molecule.molecule import Molecule
from anylatent.modalities.molecule.molecules import Molecules

_CHEMISTRY = ("atom_stability", "molecule_stability", "valid", "connected")


class MoleculeCompletions(Metric):
    """What becomes of molecules of which some atoms are given.

    `given`: the share of the atoms that is; `given_elements`: the share of the given atoms whose
    element is in the completion, `given_rmsd` (Å): the root of the mean squared distance of these
    atoms from where they were given, moved as a whole, not rotated. Of all atoms of completions:
    `atom_stability`, `molecule_stability`, `valid`, `connected` as of samples (see `chemistry`;
    stability is left out for data without hydrogens). `recovered`: the share of completions that
    are the molecule that the atoms were taken from, both valid, by the canonical SMILES of their
    largest fragments; `recovered_once`: of molecules that one completion or more recovers;
    `different`: of the valid completions of a molecule, the share that is left if each counts once.

    Rows: "samples"; "held-out", the molecules themselves, which is the most that can be; and
    "given and cloud", the given atoms among others of the right number, with Gaussian positions and
    elements as frequent as in all. Molecules of which nothing or everything is given count for
    nothing; `molecules` and `completions` of each are how many.
    """

    modality: ClassVar[str] = "molecule"
    place: ClassVar[int] = 5

    def __init__(self, data: Data) -> None:
        hydrogens = "H" in data.facts["elements"]
        self.chemistry = [n for n in _CHEMISTRY if hydrogens or n not in NEED_HYDROGENS]

    def completions(
        self,
        originals: Outputs,
        outputs: Sequence[Outputs],
        given: Tensor,
        columns: Mapping[str, Any],
    ) -> dict[str, dict[str, float]]:
        """Raises ValueError for what are no molecules, or not of the originals' sizes."""
        whole, made = molecules_of(originals), [molecules_of(each) for each in outputs]
        _check_sizes(whole, made, given)
        places = [row[:size].cpu() for row, size in zip(given, whole.sizes.tolist(), strict=True)]
        kept = [k for k, here in enumerate(places) if bool(here.any()) and not bool(here.all())]
        if not kept or not made:
            return {}
        true, known = Molecules(whole[k] for k in kept), [places[k] for k in kept]
        rows = {
            "samples": [[each[k] for k in kept] for each in made],
            "held-out": [list(true)],
            "given and cloud": [filled(true, known)],
        }
        told = track(rows.items(), "judging completions", len(rows))
        return {name: self._row(true, every, known) for name, every in told}

    def _row(
        self, true: Molecules, made: Sequence[Sequence[Molecule]], given: Sequence[Tensor]
    ) -> dict[str, float]:
        """Of K completions of each of B molecules."""
        verdicts = [[judge(molecule) for molecule in each] for each in made]
        row = {
            "molecules": float(len(true)),
            "completions": float(len(made)),
            "given": float(torch.cat(list(given)).double().mean()),
            **_as_given(true, made, given),
        }
        found = shares([verdict for each in verdicts for verdict in each], frozenset())
        row |= {name: found[name] for name in self.chemistry}
        return row | _recovered(true, [[verdict.smiles for verdict in each] for each in verdicts])


def filled(molecules: Molecules, given: Sequence[Tensor]) -> list[Molecule]:
    """The given atoms (n,) of each molecule, and for all others those of a cloud around them."""
    return [
        Molecule(
            torch.where(here[:, None], one.x - one.x[here].mean(0), rest.x),
            torch.where(here, one.z, rest.z),
            torch.where(here, one.charge, rest.charge),
        )
        for one, rest, here in zip(molecules, cloud(molecules), given, strict=True)
    ]


def _as_given(
    true: Molecules, made: Sequence[Sequence[Molecule]], given: Sequence[Tensor]
) -> dict[str, float]:
    """Whether the given atoms are what and where they were."""
    pairs = [
        (_part(one, here), _part(other, here))
        for each in made
        for one, other, here in zip(true, each, given, strict=True)
    ]
    apart = torch.cat([squares(a, b) for a, b in pairs]).mean().sqrt()
    same = torch.cat([a.z == b.z for a, b in pairs])
    return {"given_elements": float(same.double().mean()), "given_rmsd": float(apart)}


def _recovered(true: Molecules, found: Sequence[Sequence[str]]) -> dict[str, float]:
    """How often the SMILES of completions, "" where invalid, are those of the molecules."""
    own = [judge(molecule).smiles for molecule in true]
    same = [[a == b != "" for a, b in zip(own, each, strict=True)] for each in found]
    right = torch.tensor(same).double()
    row = {"recovered": float(right.mean()), "recovered_once": float(right.amax(0).mean())}
    valid = [[smiles for smiles in each if smiles] for each in zip(*found, strict=True)]
    if len(found) > 1 and any(valid):
        row["different"] = sum(len(set(each)) for each in valid) / sum(map(len, valid))
    return row


def _part(molecule: Molecule, places: Tensor) -> Molecule:
    return Molecule(molecule.x[places], molecule.z[places], molecule.charge[places])


def _check_sizes(whole: Molecules, made: Sequence[Molecules], given: Tensor) -> None:
    sizes = whole.sizes.tolist()
    for each in made:
        if each.sizes.tolist() != sizes:
            raise ValueError(
                f"completions must have as many atoms as the originals, {sizes[:8]}, got "
                f"{each.sizes.tolist()[:8]}"
            )
    if given.ndim != 2 or len(given) != len(sizes) or given.shape[1] < max(sizes):
        raise ValueError(
            f"given (B, N) must fit {len(sizes)} molecules of up to {max(sizes)} atoms, got "
            f"{tuple(given.shape)}"
        )
