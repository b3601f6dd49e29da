"""Molecules: padded batches of atoms, saved as SDF and XYZ, shown in two and three dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from anylatent.core.autoencoders import of_any_scale
from anylatent.core.latents import Field, Latent, LatentSpec, Noise
from anylatent.core.likelihood import log_normal
from anylatent.core.modality import Batch, Data, Item, Metrics, Modality, histogram_nats
from anylatent.core.support.files import UserError
from anylatent.modalities.molecule.elements import NUMBERS, indices
from anylatent.modalities.molecule.molecules import Molecule, Molecules

if TYPE_CHECKING:
    from PIL import Image

_LARGEST_PERCEIVED = 100
"""Atoms: beyond, RDKit's perception is left out of the saved files."""


class MoleculeModality(Modality):
    """Molecules of elements, formal charges and sizes that the data's facts list.

    A batch has `x` (B, N, 3) in Å with zero mean, `element` (B, N) places in `elements`, `charge`
    (B, N), `mask` (B, N), `atoms` (B,), properties (B,) and `smiles`; zero at padding. Outputs are
    `Molecules`. In data space (EDM, 2203.17003) a molecule is the latent

        x (N, 3) in Å,    h (N, F) = [one-hot element, charge_scale · charge],

    without the last entry where the data have one charge only. Normalised positions have deviation
    1 and h `feature_std`: at the default, 0.25 between two elements beside bonds of about 1, as in
    EDM, so that sampling settles positions first.

    `rotate` turns and mirrors each sample at random while an autoencoder learns; equivariant ones
    need it not.
    Conditions that need no conditioner: `atoms`, a size; `fragment`, a file of a molecule whose
    atoms each sample has, in their shape, as its first atoms.
    """

    asks: tuple[str, ...] = ("atoms", "fragment")
    encoding: tuple[str, ...] = ("elements", "charges")
    completion: float = 3.0  # of 0, 1, 3, 6 and 12; benchmarks/results/molecule.md

    def __init__(
        self,
        elements: Sequence[str] = (),
        charges: Sequence[int] = (0,),
        sizes: Sequence[Sequence[int]] = (),
        *,
        rotate: bool = False,
        feature_std: float = 0.08,
        charge_scale: float = 0.4,
    ) -> None:
        unknown = [symbol for symbol in elements if NUMBERS.get(symbol, 0) == 0]
        if unknown:
            raise ValueError(
                f"no elements: {', '.join(unknown)}; symbols such as C or Cl are wanted"
            )
        if not feature_std > 0 or not charge_scale > 0:
            raise UserError(
                f"feature_std={feature_std:g} and charge_scale={charge_scale:g} must be positive"
            )
        self.elements, self.charges = tuple(elements), tuple(charges)
        self.sizes = tuple(sorted((int(n), int(count)) for n, count in sizes))
        self.rotate, self.feature_std, self.charge_scale = rotate, feature_std, charge_scale

    # ---- batches ------------------------------------------------------------------------------
    def collate(self, items: Sequence[Item]) -> dict[str, Any]:
        """Atoms padded to the largest of the items; floats become float32, texts lists."""
        from anylatent.core.modality import pad_items

        batch = pad_items(items)
        batch["mask"] = torch.arange(batch["x"].shape[1]) < batch["atoms"][:, None]
        return batch

    def augment(self, batch: Batch, noise: Noise) -> Batch:
        """With `rotate`: a rotation of each sample, uniform, that mirrors half of them."""
        if not self.rotate:
            return batch
        x: Tensor = batch["x"]
        q, r = torch.linalg.qr(noise.normal(3, 3).double())
        turn = (q * r.diagonal(dim1=1, dim2=2).sign()[:, None]).to(x)[:, None]
        turned = sum(x[..., i, None] * turn[..., i, :] for i in range(3))  # the same at any padding
        return {**batch, "x": turned}

    # ---- sizes --------------------------------------------------------------------------------
    def blank(
        self, spec: LatentSpec, samples: int, noise: Noise, cond: Mapping[str, Any]
    ) -> Latent:
        """Of the sizes in `cond["atoms"]`; None entries, or all, are drawn as often as in training.

        Each sample draws one uniform number in any case, so that what follows does not depend on
        its neighbours. Raises UserError for a size outside the range of the training data.
        """
        asked = cond.get("atoms")
        values = [None] * samples if asked is None else _listed("atoms", asked, samples)
        known = self._fragments(samples, cond)
        least = [1] * samples if known is None else [item["atoms"] + 1 for item in known]
        lengths = [
            self._drawn(u, few) if value is None else self._size(value, few)
            for value, u, few in zip(values, noise.uniform(), least, strict=True)
        ]
        return spec.blank(samples, torch.tensor(lengths))

    def _drawn(self, uniform: Tensor, least: int) -> int:
        """A size by the inverse of the histogram's distribution function, of `least` atoms or
        more."""
        if not self.sizes:
            raise UserError("the sizes of the training data are unknown: give cond.atoms=...")
        sizes, counts = torch.tensor(self.sizes).unbind(1)
        fit = counts.double() * (sizes >= least)
        if not bool(fit.any()):
            raise UserError(
                f"a fragment of {least - 1} atoms leaves nothing to complete: this model makes "
                f"molecules of up to {int(sizes[-1])} atoms"
            )
        ends = fit.cumsum(0)
        place = torch.searchsorted(ends, uniform * ends[-1], right=True)
        return int(sizes[place.clamp(max=int(fit.nonzero().max()))])

    def _size(self, value: Any, least: int) -> int:
        low, high = (self.sizes[0][0], self.sizes[-1][0]) if self.sizes else (1, None)
        low = max(low, least)
        allowed = f"{low} to {high}" if high is not None else "1 or more"
        try:
            size = int(value)
            whole = size == float(value) and not isinstance(value, bool)
        except (TypeError, ValueError, OverflowError):
            size, whole = 0, False
        if not whole or size < low or (high is not None and size > high):
            raise UserError(
                f"cond.atoms={value}: allowed are {allowed} atoms, as in the training data"
                + (" and more than the fragment has" if least > 1 else "")
                + "; ask for a whole number in that range, or leave it out to draw sizes as in the "
                "data"
            )
        return size

    def unit(self, batch: Batch) -> tuple[str, Tensor]:
        return "atom", batch["mask"].sum(1)

    def size_nats(self, x0: Latent) -> Tensor:
        """By the training part's histogram, with one more molecule of each size up to the largest,
        as a held-out one may have a size that none of it has."""
        if not self.sizes:
            return super().size_nats(x0)
        return histogram_nats(x0, self.sizes, self.sizes[-1][0])

    # ---- fragments ----------------------------------------------------------------------------
    def known(self, blank: Latent, cond: Mapping[str, Any]) -> Batch | None:
        """The molecules of the files `cond["fragment"]`, one for each sample."""
        items = self._fragments(blank.batch, cond)
        return None if items is None else self.collate(items)

    def _fragments(self, samples: int, cond: Mapping[str, Any]) -> list[Item] | None:
        if cond.get("fragment") is None:
            return None
        paths = _listed("fragment", cond["fragment"], samples)
        if any(not isinstance(path, (str, Path)) for path in paths):
            raise UserError("cond.fragment: the path of a .sdf, .mol, .xyz or .pdb file is wanted")
        read = {path: self._fragment(Path(path)) for path in dict.fromkeys(paths)}
        return [read[path] for path in paths]

    def _fragment(self, path: Path) -> Item:
        from anylatent.modalities.molecule.data.skeletons import NEAREST
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
        molecule = records[0].molecule
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

    def complete(self, outputs: Molecules, known: Batch) -> Molecules:
        """The fragment's own atoms, moved as a whole to where they were restored."""
        fragments = self.originals(known)
        return Molecules(
            Molecule(
                torch.cat([piece.x + (made.x[:n] - piece.x).mean(0), made.x[n:]]),
                torch.cat([piece.z, made.z[n:]]),
                torch.cat([piece.charge, made.charge[n:]]),
            )
            for made, piece in zip(outputs, fragments, strict=True)
            for n in (len(piece),)
        )

    # ---- data space ---------------------------------------------------------------------------
    def raw_spec(self) -> LatentSpec:
        """x (None, 3) centred, h (None, elements and, if there are several, one for charges)."""
        if not self.elements:
            raise ValueError("which elements there are is unknown: build it from the data's facts")
        features = len(self.elements) + (len(self.charges) > 1)
        h = Field((None, features), std=self.feature_std)
        return LatentSpec({"x": Field((None, 3), centred=True), "h": h})

    def lift(self, batch: Batch) -> Latent:
        """A batch as a latent in data space, in the dtype of `x`; see the class."""
        x, mask = batch["x"], batch["mask"]
        onehot = torch.nn.functional.one_hot(batch["element"], len(self.elements))
        h = onehot.to(x)
        if len(self.charges) > 1:
            h = torch.cat([h, self.charge_scale * batch["charge"].to(x)[..., None]], -1)
        return self.raw_spec().wrap({"x": x, "h": h}, {"x": mask, "h": mask})

    def log_prob(self, batch: Batch, z: Latent) -> Tensor:
        """A density of positions in Å on the centred subspace, and probabilities of elements and
        charges: of data around a latent by Gaussian noise whose scale is unknown."""
        kinds, mask = self.lift(batch)["h"].double(), batch["mask"]
        place = self.raw_spec().take(["x"])
        error = place.wrap({"x": (z["x"] - batch["x"]).double()}, {"x": mask})
        h, size = z["h"].double(), len(self.elements)
        options = [(torch.eye(size).to(h), h[..., :size], kinds[..., :size].argmax(-1))]
        if len(self.charges) > 1:
            known = torch.tensor(self.charges, device=h.device)
            which = (batch["charge"][..., None] == known).long().argmax(-1)
            options.append((self.charge_scale * known[:, None].to(h), h[..., size:], which))

        def of_kinds(scale: float) -> Tensor:
            return torch.stack([_nearness(*option, mask, scale) for option in options]).sum(0)

        return of_any_scale(lambda scale: log_normal(error, scale)) + of_any_scale(of_kinds)

    def lower(self, z: Latent) -> Molecules:
        """The molecules nearest to a latent in data space: largest element, nearest charge."""
        h = z["h"]
        element = h[..., : len(self.elements)].argmax(-1)
        known = torch.tensor(self.charges, device=h.device)
        if len(self.charges) > 1:
            value = h[..., -1:] / self.charge_scale
            charge = known[(value - known).abs().argmin(-1)]
        else:
            charge = known.expand(element.shape)
        return Molecules.unpack(z["x"], self.atomic_numbers(element), charge, z.masks["x"])

    def atomic_numbers(self, element: Tensor) -> Tensor:
        """Of places among the elements, of any shape."""
        numbers = torch.tensor([NUMBERS[symbol] for symbol in self.elements])
        return numbers.to(element.device)[element]

    # ---- outputs ------------------------------------------------------------------------------
    def originals(self, batch: Batch) -> Molecules:
        z = self.atomic_numbers(batch["element"])
        return Molecules.unpack(batch["x"], z, batch["charge"], batch["mask"])

    def join(self, pieces: Sequence[Molecules]) -> Molecules:
        return Molecules(molecule for piece in pieces for molecule in piece)

    def save(self, outputs: Molecules, directory: Path, names: Sequence[str]) -> list[Path]:
        """NAME.sdf with the bonds of the distance table, NAME.xyz, and NAME_rdkit.sdf.

        The last has the bonds that RDKit perceives: left out where it finds none, for more than
        100 atoms, and without hydrogen in the data, whose absence it would take for multiple bonds.
        """
        paths: list[Path] = []
        for molecule, name in zip(outputs, names, strict=True):
            paths += self._save(molecule, Path(directory), name)
        return paths

    def _save(self, molecule: Molecule, directory: Path, name: str) -> list[Path]:
        from anylatent.modalities.molecule.files import formula, write_sdf, write_xyz
        from anylatent.modalities.molecule.perception import mol_by_rdkit, mol_by_table

        table, plain = directory / f"{name}.sdf", directory / f"{name}.xyz"
        perceived = directory / f"{name}_rdkit.sdf"
        write_sdf(molecule, mol_by_table(molecule), table)
        write_xyz(molecule, plain, f"{name} {formula(molecule)}")
        fit = len(molecule) <= _LARGEST_PERCEIVED and "H" in self.elements
        mol = mol_by_rdkit(molecule) if fit else None
        if mol is None:
            perceived.unlink(missing_ok=True)  # of an earlier sample of this name
            return [table, plain]
        write_sdf(molecule, mol, perceived, bonds="RDKit")
        return [table, plain, perceived]

    def show(
        self, outputs: Molecules, columns: int | None = None, labels: Sequence[str] = ()
    ) -> Image.Image:
        """Each molecule in space and, below, its 2D drawing by the distance table."""
        from anylatent.modalities.molecule.drawing import cards

        return cards(outputs, columns, labels)

    def compare(self, originals: Molecules, outputs: Molecules) -> Image.Image:
        """In space, data above and reconstructions below, both from the side of the data."""
        from anylatent.modalities.molecule.drawing import comparison

        return comparison(originals, outputs)

    def metrics(self, data: Data) -> Metrics:
        from anylatent.modalities.molecule.metrics import MoleculeMetrics

        return MoleculeMetrics(data)


def _nearness(table: Tensor, h: Tensor, which: Tensor, mask: Tensor, scale: float) -> Tensor:
    """log p(row of the table | h) by Bayes' rule for Gaussian noise, over all atoms, (B,)."""
    logits = -((h[..., None, :] - table) ** 2).sum(-1) / (2 * scale**2)
    nats = torch.log_softmax(logits, -1).gather(-1, which[..., None])[..., 0]
    return torch.where(mask, nats, 0).sum(1)


def _listed(name: str, asked: Any, samples: int) -> list[Any]:
    values = asked.tolist() if isinstance(asked, Tensor) else list(asked)
    if len(values) != samples:
        raise UserError(f"cond.{name} has {len(values)} values for {samples} samples")
    return values
