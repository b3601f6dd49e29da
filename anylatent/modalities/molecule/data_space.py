"""Molecules as latents: positions, and features of elements and charges (EDM, 2203.17003)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anylatent.core.autoencoders import of_any_scale
from anylatent.core.latents import Field, Latent, LatentSpec
from anylatent.core.likelihood import log_normal
from anylatent.core.modality import Batch, DataSpace
from anylatent.core.support.files import UserError
from anylatent.modalities.molecule.elements import atomic_numbers
from anylatent.modalities.molecule.molecules import Molecules


class AtomSpace(DataSpace):
    """x (N, 3) in Å,    h (N, F) = [one-hot element, charge_scale · charge],

    without the last entry where the data have one charge only. Normalised positions have deviation
    1 and h `feature_std`.
    """

    def __init__(
        self,
        elements: Sequence[str],
        charges: Sequence[int],
        feature_std: float,
        charge_scale: float,
    ) -> None:
        if not feature_std > 0 or not charge_scale > 0:
            raise UserError(
                f"feature_std={feature_std:g} and charge_scale={charge_scale:g} must be positive"
            )
        self.elements, self.charges = tuple(elements), tuple(charges)
        self.feature_std, self.charge_scale = feature_std, charge_scale

    @property
    def spec(self) -> LatentSpec:
        """x (None, 3) centred, h (None, elements and, if there are several, one for charges)."""
        if not self.elements:
            raise ValueError("which elements there are is unknown: build it from the data's facts")
        features = len(self.elements) + (len(self.charges) > 1)
        h = Field((None, features), std=self.feature_std)
        return LatentSpec({"x": Field((None, 3), centred=True), "h": h})

    def lift(self, batch: Batch) -> Latent:
        """A batch as a latent in data space, in the dtype of `x`; see the class."""
        x = batch["x"]
        onehot = torch.nn.functional.one_hot(batch["element"], len(self.elements))
        return self._wrapped(x, onehot.to(x), batch["charge"].to(x), batch["mask"])

    def expected(self, x: Tensor, element: Tensor, charge: Tensor, mask: Tensor) -> Latent:
        """Positions, and the means of elements and charges by their probabilities (B, N, kinds)."""
        known = torch.tensor(self.charges, device=x.device, dtype=x.dtype)
        return self._wrapped(x, element.to(x), (charge.to(x) * known).sum(-1), mask)

    def _wrapped(self, x: Tensor, element: Tensor, charge: Tensor, mask: Tensor) -> Latent:
        several = len(self.charges) > 1
        h = [element, self.charge_scale * charge[..., None]] if several else [element]
        return self.spec.wrap({"x": x, "h": torch.cat(h, -1)}, {"x": mask, "h": mask})

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
        numbers = atomic_numbers(element, self.elements)
        hydrogens = "H" in self.elements
        return Molecules.unpack(z["x"], numbers, charge, z.masks["x"], hydrogens=hydrogens)

    def log_prob(self, batch: Batch, z: Latent) -> Tensor:
        """A density of positions in Å on the centred subspace, and probabilities of elements and
        charges: of data around a latent by Gaussian noise whose scale is unknown."""
        kinds, mask = self.lift(batch)["h"].double(), batch["mask"]
        place = self.spec.take(["x"])
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


def _nearness(table: Tensor, h: Tensor, which: Tensor, mask: Tensor, scale: float) -> Tensor:
    """log p(row of the table | h) by Bayes' rule for Gaussian noise, over all atoms, (B,)."""
    logits = -((h[..., None, :] - table) ** 2).sum(-1) / (2 * scale**2)
    nats = torch.log_softmax(logits, -1).gather(-1, which[..., None])[..., 0]
    return torch.where(mask, nats, 0).sum(1)
