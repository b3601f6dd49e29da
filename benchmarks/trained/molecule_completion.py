"""Completions of fragments of held-out molecules by a model that never learned to complete.

    python benchmarks/trained/molecule_completion.py runs/qm9 [--n 200]

`anylatent benchmark` measures models that did (objective.masking). Here half of the heavy atoms of
each molecule, bonded to one another and without hydrogens, are given as `cond.fragment`, and the
number of atoms; the figures are the same, and free samples of these sizes are beside them.
"""

import argparse
import tempfile
from pathlib import Path

import torch

import anylatent as al
from anylatent.core.registry.building import build
from anylatent.core.reports.evaluation import table
from anylatent.modalities.molecule.bonds import bond_orders
from anylatent.modalities.molecule.files import write_xyz
from anylatent.modalities.molecule.metrics import MoleculeCompletions, judge
from anylatent.modalities.molecule.metrics.chemistry import shares
from anylatent.modalities.molecule.molecule import Molecule
from anylatent.modalities.molecule.molecules import Molecules


def fragment_first(molecule):
    """The molecule, beginning with the half of its heavy atoms, rounded up, that is fewest bonds
    from the first of them; and how many these are."""
    heavy = (molecule.z > 1).nonzero().flatten()
    x, z = molecule.x[heavy], molecule.z[heavy]
    bonded = bond_orders(torch.cdist(x, x), z[None]) > 0
    bonded = bonded.reshape(len(heavy), len(heavy))
    taken = [0]
    for atom in taken:
        taken += [j for j in bonded[atom].nonzero().flatten().tolist() if j not in taken]
    taken = heavy[taken[: (len(heavy) + 1) // 2]].tolist()
    order = taken + [atom for atom in range(len(molecule)) if atom not in taken]
    return Molecule(molecule.x[order], molecule.z[order], molecule.charge[order]), len(taken)


def completed(run, molecules, counts, seed):
    """A sample for each molecule, of its size, that begins with its first atoms."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.xyz" for i in range(len(molecules))]
        for m, n, path in zip(molecules, counts, paths, strict=True):
            write_xyz(Molecule(m.x[:n], m.z[:n], m.charge[:n]), path)
        cond = {"fragment": [str(path) for path in paths], "atoms": molecules.sizes.tolist()}
        return run.sample(len(paths), seed, cond=cond)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run = al.load(options.run)
    modality, data = run.system.modality, build("data", run.config.data)
    held_out = data.held_out()
    generator = torch.Generator().manual_seed(options.seed)
    rows = torch.randperm(len(held_out), generator=generator)[: options.n].tolist()
    whole = modality.originals(modality.collate([held_out[row] for row in rows]))
    found, counts = zip(*(fragment_first(molecule) for molecule in whole), strict=True)
    molecules = Molecules(found, hydrogens=whole.hydrogens)
    given = torch.arange(int(molecules.sizes.max())) < torch.tensor(counts)[:, None]
    outputs = completed(run, molecules, counts, options.seed)
    metric = MoleculeCompletions(data)
    judged = metric.completions(molecules, [outputs], given, {})
    free = run.sample(len(molecules), options.seed, cond={"atoms": molecules.sizes.tolist()})
    chemistry = shares([judge(molecule) for molecule in free], frozenset())
    judged["free samples"] = {name: chemistry[name] for name in metric.chemistry}
    print(table(judged))


if __name__ == "__main__":
    main()
