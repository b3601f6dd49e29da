"""Completions of fragments of held-out molecules, judged as free samples are.

    python benchmarks/trained/molecule_completion.py runs/qm9 [--n 200]

Of each molecule half of its heavy atoms, bonded to one another and without hydrogens, are given,
and the number of atoms; the model places the rest. Beside the completions: free samples of the
same sizes, the fragments with the rest of their atoms from a Gaussian cloud, and the molecules
themselves.
"""

import argparse
import tempfile
from pathlib import Path

import torch

import anylatent as al
from anylatent.core.registry.building import build
from anylatent.modalities.molecule.bonds import bond_orders
from anylatent.modalities.molecule.files import write_xyz
from anylatent.modalities.molecule.metrics.chemistry import judge, shares
from anylatent.modalities.molecule.metrics.suite import cloud
from anylatent.modalities.molecule.molecule import Molecule
from anylatent.modalities.molecule.molecules import Molecules

COLUMNS = ("atom_stability", "molecule_stability", "valid", "connected")


def fragment(molecule):
    """The half of the heavy atoms, rounded up, that is fewest bonds from the first of them."""
    heavy = (molecule.z > 1).nonzero().flatten()
    x, z = molecule.x[heavy], molecule.z[heavy]
    bonded = bond_orders(torch.cdist(x, x), z[None]) > 0
    bonded = bonded.reshape(len(heavy), len(heavy))
    taken = [0]
    for atom in taken:
        taken += [j for j in bonded[atom].nonzero().flatten().tolist() if j not in taken]
    taken = taken[: (len(heavy) + 1) // 2]
    return Molecule(x[taken], z[taken], molecule.charge[heavy][taken])


def filled(molecules, fragments):
    """The fragments, with the remaining atoms from the cloud around them."""
    return Molecules(
        Molecule(
            torch.cat([piece.x - piece.x.mean(0), rest.x[len(piece) :]]),
            torch.cat([piece.z, rest.z[len(piece) :]]),
            torch.zeros(len(rest), dtype=torch.long),
        )
        for piece, rest in zip(fragments, cloud(molecules), strict=True)
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run = al.load(options.run)
    modality = run.system.modality
    held_out = build("data", run.config.data).held_out()
    generator = torch.Generator().manual_seed(options.seed)
    rows = torch.randperm(len(held_out), generator=generator)[: options.n].tolist()
    molecules = modality.originals(modality.collate([held_out[row] for row in rows]))
    fragments = [fragment(molecule) for molecule in molecules]
    sizes = molecules.sizes.tolist()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.xyz" for i in range(len(fragments))]
        for piece, path in zip(fragments, paths, strict=True):
            write_xyz(piece, path)
        cond = {"fragment": [str(path) for path in paths], "atoms": sizes}
        completed = run.sample(len(paths), options.seed, cond=cond)
    free = run.sample(len(sizes), options.seed, cond={"atoms": sizes})
    given = sum(map(len, fragments)) / sum(sizes)
    print(f"{len(sizes)} molecules; {given:.0%} of their atoms are given")
    print("| | " + " | ".join(COLUMNS) + " |\n|" + "---|" * (len(COLUMNS) + 1))
    judged = {
        "completions": completed,
        "free samples": free,
        "fragment and cloud": filled(molecules, fragments),
        "the molecules": molecules,
    }
    for name, those in judged.items():
        found = shares([judge(molecule) for molecule in those], frozenset())
        print(f"| {name} | " + " | ".join(f"{found[column]:.3f}" for column in COLUMNS) + " |")


if __name__ == "__main__":
    main()
