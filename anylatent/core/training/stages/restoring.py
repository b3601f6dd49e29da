"""What stages share in which the autoencoder learns, from the data themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler

from anylatent.core.autoencoders import Autoencoder
from anylatent.core.training.settings import StageSettings
from anylatent.core.training.stages.base import Stage, Training, learning
from anylatent.core.training.step_sampler import StepSampler
from anylatent.core.training.windows import windowed


class Restoring(Stage):
    """A stage on the training items, of long ones on so many entries in a row as `window` says, by
    default as the data say; with an optimiser of its own for the autoencoder's adversary."""

    def __init__(self, training: Training, settings: StageSettings) -> None:
        super().__init__(training, settings)
        self.window: int | None = training.data.window

    def optimisers(self) -> dict[str, Iterable[nn.Parameter]]:
        return _with_adversary(self.system.autoencoder, self.networks().values())

    def dataset(self) -> Dataset[Any]:
        found = self.training.data.train()
        self.lengths: Tensor | None = getattr(found, "lengths", None)
        return found

    def sampler(self, steps: StepSampler) -> Sampler[Any]:
        return windowed(steps, self.lengths, self.window)

    def report(self) -> dict[str, float]:
        return self.system.autoencoder.report()


def _with_adversary(
    autoencoder: Autoencoder, networks: Iterable[nn.Module]
) -> dict[str, Iterable[nn.Parameter]]:
    """All parameters that learn, those of an adversary apart."""
    adversary = autoencoder.adversary
    apart = [] if adversary is None else list(adversary.parameters())
    known = {id(p) for p in apart}
    every = learning(networks)
    own: dict[str, Iterable[nn.Parameter]] = {"all": [p for p in every if id(p) not in known]}
    return {**own, "adversary": apart} if apart else own
