"""Networks in a lower precision than their weights have, outside training.

Only what is marked so computes in it: backbones, decoders, networks that write tokens. What goes in
and comes out keeps its precision, and so does all around them: the state of solvers, noise,
guidance. In training the trainer says the precision, and this is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import nn

_exact = ContextVar("exact", default=False)


class Mixed:
    """A module whose products are computed in `computes_in`, by autocast, where that is set."""

    computes_in: torch.dtype | None = None

    def computing(self, device: torch.device) -> AbstractContextManager[object]:
        """What its networks are called in."""
        if self.computes_in is None or is_exact():
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
def exactly() -> Iterator[None]:
    """All networks compute in the precision of their weights, as they are written and not as they
    were compiled, in the block; a GPU multiplies in float32 then."""
    token, products = _exact.set(True), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        _exact.reset(token)
        torch.set_float32_matmul_precision(products)


def is_exact() -> bool:
    """Whether this is within `exactly`, which what is compiled as a whole never is."""
    return not torch.compiler.is_compiling() and _exact.get()


def _mixed(model: nn.Module) -> list[Mixed]:
    return [module for module in model.modules() if isinstance(module, Mixed)]
