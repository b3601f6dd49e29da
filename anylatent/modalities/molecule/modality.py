"""Molecules: padded batches of atoms, their sizes, and fragments that they complete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from anylatent.core.latents import Noise
from anylatent.core.modality import Batch, Item, Modality
from anylatent.modalities.molecule.batches import collate, rotated, unpacked
from anylatent.modalities.molecule.data_space import AtomSpace
from anylatent.modalities.molecule.elements import NUMBERS
from anylatent.modalities.molecule.given import Fragments
from anylatent.modalities.molecule.molecules import Molecules
from anylatent.modalities.molecule.sizes import AtomCounts


class MoleculeModality(Modality):
    """Molecules of elements, formal charges and sizes that the data's facts list.

    A batch has `x` (B, N, 3) in Å with zero mean, `element` (B, N) places in `elements`, `charge`
    (B, N), `mask` (B, N), `atoms` (B,), properties (B,) and `smiles`; zero at padding. Outputs are
    `Molecules`. In data space (EDM, 2203.17003) a molecule is a latent of positions x and features
    h, see `AtomSpace`. Normalised positions have deviation 1 and h `feature_std`: at the default,
    0.25 between two elements beside bonds of about 1, as in EDM, so that sampling settles positions
    first; charges are in h times `charge_scale`.

    `rotate` turns and mirrors each sample at random while an autoencoder learns; equivariant ones
    need it not.
    Conditions that need no conditioner: `atoms`, a size (`AtomCounts`); `fragment`, a file of a
    molecule whose atoms each sample has (`Fragments`).
    """

    encoding: tuple[str, ...] = ("elements", "charges")
    sizes: AtomCounts
    data_space: AtomSpace
    given: Fragments

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
        self.elements, self.rotate = tuple(elements), rotate
        self.given = Fragments(elements, charges)
        self.sizes = AtomCounts(sizes, self.given)
        self.data_space = AtomSpace(elements, charges, feature_std, charge_scale)

    def collate(self, items: Sequence[Item]) -> dict[str, Any]:
        """Atoms padded to the largest of the items; floats become float32, texts lists."""
        return collate(items)

    def augment(self, batch: Batch, noise: Noise) -> Batch:
        """With `rotate`: a rotation of each sample, uniform, that mirrors half of them."""
        return rotated(batch, noise) if self.rotate else batch

    def unit(self, batch: Batch) -> tuple[str, Tensor]:
        return "atom", batch["mask"].sum(1)

    def originals(self, batch: Batch) -> Molecules:
        return unpacked(batch, self.elements)
