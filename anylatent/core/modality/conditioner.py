"""Raw columns as conditions: what is computed once, what changes at each step, what learns.

    columns --forward--> Condition --vary--> Condition --learned--> Condition --drop--> backbone
             once, on disk          each step of training  each call      each step of training

Of these only the first is asked of a conditioner; the others leave a condition as it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from anylatent.core.latents import Condition, ConditionSpec, Latent, LatentSpec, Noise
from anylatent.core.modality.batch import Batch
from anylatent.core.registry import group


class LatentEncoder(Protocol):
    """The run's own autoencoder, as a conditioner may use it: frozen, and always the same.

    `spec` is that of its latents.
    """

    @property
    def spec(self) -> LatentSpec: ...

    def __call__(self, batch: Batch) -> Latent:
        """The means of the posteriors of a batch, in the autoencoder's own scale: the one that
        diffusion has is known only after conditions were computed. Without gradients."""


class Conditioner(nn.Module, ABC):
    """Turns raw columns (captions, class names, pictures, ...) into the tensors of a `Condition`.

    `spec` has the conditions that a backbone embeds, by their names; `columns` the raw columns that
    they are made of, which a user gives as `cond.COLUMN=...`: those of the conditions, where a
    conditioner does not set them.

    Its parameters that need gradients, and only they, are trained with the generator, and are saved
    with the run as all of its state is. `forward` must not use them, for what it gives is computed
    once; `learned` is the place for them.
    """

    spec: ConditionSpec

    @cached_property
    def columns(self) -> Sequence[str]:
        """The raw columns that it reads."""
        return self.spec.names

    @property
    def shared(self) -> Sequence[str]:
        """The columns that tell what is shown, which a model of parts of it can be asked for too;
        by default all."""
        return self.columns

    @property
    def files(self) -> Sequence[Path]:
        """Files beside its state that what it computes depends on, as those of a frozen encoder."""
        return ()

    @property
    def learns(self) -> bool:
        """Whether it has parameters that learn."""
        return any(p.requires_grad for p in self.parameters())

    @abstractmethod
    def forward(self, columns: Mapping[str, Any]) -> Condition:
        """What is computed once, and cached with the latents; names and shapes need not be those of
        `spec` yet.

        `columns` as in a batch, or as a user gave them: by name a tensor (B, ...), or a list with
        an entry for each sample (a tensor, a plain value, None where it is to be dropped). Unknown
        names and values are errors that list what is allowed.
        """

    def vary(self, cond: Condition, noise: Noise) -> Condition:
        """Another variant of what `forward` gave, anew at each step of training: a cloud that is
        cut elsewhere, a prompt in other words. `noise` has numbers for each sample. What samples
        are drawn under is not varied."""
        return cond

    def learned(self, cond: Condition) -> Condition:
        """What the trained parameters make of a condition, by the names and shapes of `spec`; the
        gradient of the generator's loss reaches them."""
        return cond


group("conditioner", Conditioner, offers={"autoencoder": LatentEncoder}, facts=True)
