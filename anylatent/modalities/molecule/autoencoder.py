"""GeoLDM's autoencoder (2305.01140): molecules to points with few features, equivariantly.

The latent of a molecule is a point set of its own size: positions x, zero on average, and F
features h per atom. With the encoder's positions μ_x and the decoder's x̂,

    z_x = μ_x + x_std·noise,   z_h ~ bottleneck(encoder's features),
    loss = |x̂ - x|²/(2·x_scale²) + cross-entropy of the element + that of the charge + bottleneck's

per degree of freedom and per atom. The noise on the positions is fixed, as in the paper; it is
what makes the decoder repair small errors of the diffusion model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from anylatent.core.autoencoders import Autoencoder
from anylatent.core.latents import Field, Latent, LatentSpec, Noise, Posterior
from anylatent.core.likelihood import log_normal
from anylatent.core.modality import Batch, Modality
from anylatent.core.nn.bottleneck import KL, Bottleneck
from anylatent.core.support.files import UserError
from anylatent.modalities.molecule.data_space import AtomSpace
from anylatent.modalities.molecule.egnn import EGNN
from anylatent.modalities.molecule.elements import atomic_numbers
from anylatent.modalities.molecule.molecules import Molecules

QM9 = ("H", "C", "N", "O", "F")
VANISHING = -20.0  # log deviation of features that are codes


class GeoLDM(Autoencoder):
    """EGNN encoder and decoder (2102.09844) with `features` latent numbers per atom.

    `width` numbers per atom and `edge` per pair in `encoder` and `decoder` layers. `x_std` is the
    deviation of the latent positions in Å, `x_scale` that of the Gaussian likelihood of the data's
    positions. `feature_std` is the deviation of normalised features beside positions of 1.
    """

    def __init__(
        self,
        elements: Sequence[str] = QM9,
        charges: Sequence[int] = (0,),
        bottleneck: Bottleneck | None = None,
        modality: Modality | None = None,
        *,
        features: int = 2,
        width: int = 64,
        edge: int = 32,
        encoder: int = 1,
        decoder: int = 3,
        x_std: float = 0.01,
        x_scale: float = 0.05,
        feature_std: float = 0.25,
    ) -> None:
        super().__init__()
        if x_std <= 0 or x_scale <= 0:
            raise ValueError(f"x_std and x_scale must be positive, got {x_std} and {x_scale}")
        self.elements, self.charges = tuple(elements), tuple(charges)
        self.space = None if modality is None else modality.data_space
        self.x_std, self.x_scale = x_std, x_scale
        self.spec = LatentSpec(
            {
                "x": Field((None, 3), centred=True),
                "h": Field((None, features), channels=1, std=feature_std),
            }
        )
        self.bottleneck = KL() if bottleneck is None else bottleneck
        self.bottleneck.attach(self.spec.take(["h"]))
        self.encoder = EGNN(len(elements) + len(charges), width, edge, encoder)
        self.coded = nn.Linear(width, self.bottleneck.pieces * features)
        self.decoder = EGNN(features, width, edge, decoder)
        self.element = nn.Linear(width, len(elements))
        self.charge = nn.Linear(width, len(charges))

    def encode(self, batch: Batch) -> Posterior:
        x, inner = self._encode(batch)
        log_std = None if inner.log_std is None else inner.log_std["h"]
        h, masks = inner.mean["h"], x.masks | inner.mean.masks
        spread = torch.full_like(h, VANISHING) if log_std is None else log_std
        fixed = torch.full_like(x["x"], math.log(self.x_std))
        mean = Latent({"x": x["x"], "h": h}, masks, self.spec)
        return Posterior(mean, Latent({"x": fixed, "h": spread}, masks, self.spec))

    def _encode(self, batch: Batch) -> tuple[Latent, Posterior]:
        """The mean of the latent positions, and the posterior of the latent features."""
        x, mask = batch["x"], batch["mask"]
        known = torch.tensor(self.charges, device=x.device)
        kinds = [one_hot(batch["element"], len(self.elements)), batch["charge"][..., None] == known]
        x, h = self.encoder(x, torch.cat([kind.to(x) for kind in kinds], -1), mask)
        pieces = self.coded(h).to(x.dtype).chunk(self.bottleneck.pieces, -1)
        features, place = self.spec.take(["h"]), self.spec.take(["x"])
        latents = [features.wrap({"h": piece}, {"h": mask}) for piece in pieces]
        return place.wrap({"x": x}, {"x": mask}), self.bottleneck.posterior(*latents)

    def decode(self, z: Latent) -> Molecules:
        """The most likely elements and charges at the decoder's positions."""
        h = self.bottleneck.decodable(z.take(["h"]))["h"]
        x, element, charge = self._decode(z["x"], h, z.masks["x"])
        known = torch.tensor(self.charges, device=x.device)
        numbers = atomic_numbers(element.argmax(-1), self.elements)
        charges, hydrogens = known[charge.argmax(-1)], "H" in self.elements
        return Molecules.unpack(x, numbers, charges, z.masks["x"], hydrogens=hydrogens)

    def restore(self, z: Latent) -> Latent:
        """Positions, and what elements and charges are expected to be."""
        if not isinstance(self.space, AtomSpace):
            raise UserError("GeoLDM restores to the space of a modality: build it with one")
        h = self.bottleneck.decodable(z.take(["h"]))["h"]
        x, element, charge = self._decode(z["x"], h, z.masks["x"])
        return self.space.expected(x, element.softmax(-1), charge.softmax(-1), z.masks["x"])

    def _decode(self, x: Tensor, h: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Positions (B, N, 3), logits of elements and charges (B, N, kinds)."""
        x, h = self.decoder(x, h, mask)
        x = self.spec.take(["x"]).wrap({"x": x}, {"x": mask})["x"]
        return x, self.element(h), self.charge(h)

    def loss(self, batch: Batch, noise: Noise, step: int) -> tuple[dict[str, Tensor], None]:
        place, inner = self._encode(batch)
        h, terms = self.bottleneck(inner, noise)
        z = place + self.x_std * noise.like(place)
        x, element, charge = self._decode(z["x"], h["h"], batch["mask"])
        known = torch.tensor(self.charges, device=x.device)
        which = (batch["charge"][..., None] == known).long().argmax(-1)
        error = place.replace(x=x - batch["x"])
        terms = {
            "position": error.dot(error) / error.dim.clamp(min=1) / (2 * self.x_scale**2),
            "element": _per_atom(element, batch["element"], batch["mask"]),
            "charge": _per_atom(charge, which, batch["mask"]),
            **terms,
        }
        return terms, None

    def log_prob(self, batch: Batch, z: Latent) -> Tensor:
        """The law that `loss` is of: a density of positions in Å on the centred subspace, and
        probabilities of elements and charges."""
        h = self.bottleneck.decodable(z.take(["h"]))["h"]
        x, element, charge = self._decode(z["x"], h, batch["mask"])
        known = torch.tensor(self.charges, device=x.device)
        which = (batch["charge"][..., None] == known).long().argmax(-1)
        mask, place = batch["mask"], self.spec.take(["x"])
        error = place.wrap({"x": (x - batch["x"]).double()}, {"x": mask})
        kinds = _per_atom(element, batch["element"], mask) + _per_atom(charge, which, mask)
        nats: Tensor = kinds.double() * mask.sum(1)
        return log_normal(error, self.x_scale) - nats

    def report(self) -> dict[str, float]:
        return self.bottleneck.report()


def _per_atom(logits: Tensor, kind: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy in nats, averaged over the atoms of each molecule, (B,)."""
    each = cross_entropy(logits.float().movedim(-1, 1), kind, reduction="none")
    return torch.where(mask, each, 0).sum(1) / mask.sum(1)
