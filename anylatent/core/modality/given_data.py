"""Data that samples must contain: a template, a fragment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor

from anylatent.core.latents import Latent
from anylatent.core.modality.batch import Batch
from anylatent.core.modality.outputs import Outputs


class Given(ABC):
    """What a user may say that samples contain, in the conditions `asks`, `cond.NAME`.

    `strength` is how strongly the rest of a sample is drawn to what is known of it: 1 by Gaussian
    theory. Of `lists` the value for one sample is a list itself. `made_by` names those that may be
    samples of another run, `cond.NAME.run=RUN`, and the modality of that run.
    """

    asks: Sequence[str]
    lists: Sequence[str] = ()
    made_by: Mapping[str, str] = MappingProxyType({})
    strength: float = 1.0

    @abstractmethod
    def known(self, blank: Latent, cond: Mapping[str, Any]) -> Batch | None:
        """Data that samples of the sizes of `blank` must contain, as a batch; None where `cond`
        asks for nothing.

        Its key "given", bool (B, N), says where they count; without it they are the first entries.
        """

    def complete(self, outputs: Outputs, known: Batch) -> Outputs:
        """Outputs that contain the known data exactly, which an autoencoder only restores."""
        return outputs

    def put(self, outputs: Outputs, data: Batch, given: Tensor) -> Outputs:
        """Outputs that were drawn to complete some `data`, of whose entries those that are `given`
        (B, N) are known, with these as they are."""
        return outputs
