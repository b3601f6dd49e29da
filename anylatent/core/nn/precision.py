"""Networks in a lower precision than their weights have, outside training.

Only what is marked so computes in it: backbones, decoders, networks that write tokens. What goes in
and comes out keeps its precision, and so does all around them: the state of solvers, noise,
guidance. In training the trainer says the precision, and this is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn


class Mixed:
    """A module whose products are computed in `computes_in`, by autocast, where that is set."""

    computes_in: torch.dtype | None = None

    def computing(self, device: torch.device) -> AbstractContextManager[object]:
        """What its networks are called in."""
        if self.computes_in is None:
            return nullcontext()
        return torch.autocast(device.type, self.computes_in)


def compute_in(model: nn.Module, dtype: torch.dtype | None) -> None:
    """Has the networks of a model compute in a precision; None: in that of their weights."""
    for network in _mixed(model):
        network.computes_in = dtype


def computed_in(model: nn.Module) -> torch.dtype | None:
    """The precision that the networks of a model are set to."""
    return next((network.computes_in for network in _mixed(model)), None)


@contextmanager
def exactly(model: nn.Module) -> Iterator[None]:
    """Its networks compute in the precision of their weights, in the block."""
    before = computed_in(model)
    compute_in(model, None)
    try:
        yield
    finally:
        compute_in(model, before)


def _mixed(model: nn.Module) -> list[Mixed]:
    return [module for module in model.modules() if isinstance(module, Mixed)]
