"""The first stage: data to latents and back.

An autoencoder lifts data to a continuous, compressed, regularised latent space and owns the spec
of that space. Everything after it sees latents only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from anylatent.core.latents import Codebook, Latent, LatentSpec, Noise, Normaliser, Posterior
from anylatent.core.modality import Batch, Modality, Outputs
from anylatent.core.nn.precision import Mixed
from anylatent.core.registry import group
from anylatent.core.support.files import UserError


class Autoencoder(Mixed, nn.Module, ABC):
    """Encoder, decoder, and the loss that trains them.

    `adversary` is a network that learns to tell reconstructions from data, with an optimiser of
    its own; None where the loss has no such part. `alone` says that its own loss can train it,
    before the generator; one that can't learns by stage=joint. `for_loss` are paths of the networks
    that only the loss needs: a trained run goes without. `by_entry`: the entries of long items,
    such as the frames of videos, are encoded and decoded one by one, so that it learns as much from
    single ones. One whose decoder has `sites` takes a guest of them, `guest=`, in `decode`, `loss`
    and `log_prob`.
    """

    spec: LatentSpec
    for_loss: Sequence[str] = ()
    adversary: nn.Module | None
    alone: bool = True
    by_entry: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.adversary = None

    def equip(self) -> None:
        """Makes the networks that only the loss needs; asked for once, before training."""

    @abstractmethod
    def encode(self, batch: Batch) -> Posterior:
        """The posterior of each sample; its mean is projected onto the subspace."""

    @abstractmethod
    def decode(self, z: Latent) -> Outputs:
        """The outputs of a batch of latents."""

    def decoded(self, z: Latent) -> Outputs:
        """`decode`, in the precision that is set."""
        with self.computing(z.device):
            return self.decode(z)

    def restore(self, z: Latent) -> Latent:
        """Data in their continuous form, as latents of the modality's `DataSpace`, before they are
        made outputs: what `decode` gives, where gradients pass. Raises UserError where outputs are
        all there is."""
        raise UserError(
            f"{type(self).__name__} decodes to outputs that have no continuous form: nothing that "
            "follows slopes through the decoder can use it"
        )

    @abstractmethod
    def loss(self, batch: Batch, noise: Noise, step: int) -> tuple[dict[str, Tensor], Any]:
        """Named terms of shape (B,) or (), weighted, to be summed; and the reconstruction."""

    def log_prob(self, batch: Batch, z: Latent) -> Tensor | None:
        """log p(data | z) in nats, shape (B,); None where the decoder is no law of the data.

        Of discrete data a log-probability, of others a log-density in the data's own units. z is
        any latent near the posterior; with it, data have a likelihood: see `data_likelihood`.
        """
        return None

    def codebook(self) -> Codebook | None:
        """The table of latents that stand for tokens; None where they do not."""
        return None

    def normaliser(self) -> Normaliser:
        """What brings its latents to the generator's scale: here one that is fitted to the
        training data. `Normaliser.fixed` has constants of its own, or changes nothing."""
        return Normaliser(self.spec)

    def adversary_loss(self, batch: Batch, output: Any, step: int) -> dict[str, Tensor]:
        """The adversary's own terms, given the reconstruction; empty before it starts."""
        return {}

    def report(self) -> dict[str, float]:
        """Figures about the latent space that are worth logging, such as the use of a codebook."""
        return {}


group("autoencoder", Autoencoder, offers={"modality": Modality}, facts=True)
