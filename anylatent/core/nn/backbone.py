"""The network of a denoiser: latents in, latents out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from anylatent.core.latents import Condition, ConditionSpec, Latent, LatentSpec
from anylatent.core.nn.precision import Mixed, is_exact
from anylatent.core.nn.sites import Site
from anylatent.core.registry import group

if TYPE_CHECKING:
    from anylatent.core.nn.guests import Guest


class Backbone(Mixed, nn.Module, ABC):
    """A network from a noisy latent to a latent of the same spec.

    Sizes come from `spec` (the autoencoder's) and `conditions` (the conditioner's). Its input has
    about unit variance. Its output need not lie in the subspace: the denoiser projects it.

    `sites` are the places where a guest is asked, in the order of a call; see `guests`.
    """

    spec: LatentSpec
    conditions: ConditionSpec
    sites: Sequence[Site] = ()
    per_entry: bool = False
    """Whether each entry of its latents may have a noise level of its own, (B, T)."""
    apart: bool = False
    """Whether entries pass its sites as samples of their own, (B · T, ...)."""
    replayed: bool = False
    """Whether it is compiled to a graph that is replayed in the same memory."""

    def __call__(self, x: Latent, *args: Any, **kwargs: Any) -> Latent:
        """`forward`, in the precision that is set, with what comes out in that of x."""
        if is_exact():
            written: Latent = self._call_impl(x, *args, **kwargs)  # type: ignore[no-untyped-call]
            return written
        if self.computes_in is None and not self.replayed:
            return super().__call__(x, *args, **kwargs)  # type: ignore[no-any-return]
        if self.replayed:  # what a graph gave last may be overwritten by what it gives next
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with self.computing(x.device):
            found: Latent = super().__call__(x, *args, **kwargs)
        return (found.map(torch.clone) if self.replayed else found).to(x.dtype)

    @abstractmethod
    def forward(
        self,
        x: Latent,
        c_noise: Tensor,
        cond: Condition | None = None,
        guest: Guest | None = None,
    ) -> Latent:
        """`c_noise`, shape (B,) or (B, T), tells the noise level, within about [-5, 5].

        A missing key of `cond` means the same as one that is dropped for every sample. Without a
        guest nothing is asked at the sites.
        """

    def lent(self, spec: LatentSpec, conditions: ConditionSpec) -> Backbone | None:
        """A network with its weights for other spaces and conditions, which belong to this one;
        None where it is lent for the same shapes alone. Raises ValueError for what it can't do."""
        return None

    def levels(self, c_noise: Tensor, x: Latent) -> Tensor:
        """c_noise of a shape that it reads. Raises ValueError for others."""
        entries = next(iter(x.parts.values())).shape[:2]
        if c_noise.shape == entries[:1] or (self.per_entry and c_noise.shape == entries):
            return c_noise
        also = f", or one per entry, {tuple(entries)}" if self.per_entry else ""
        raise ValueError(
            f"{type(self).__name__} takes one noise level per sample, shape ({x.batch},){also}, "
            f"got {tuple(c_noise.shape)}"
        )


def compile_networks(model: nn.Module, mode: str | None = None) -> None:
    """Compiles the backbones of a model, when they are first called."""
    for module in model.modules():
        if isinstance(module, Backbone):
            module.replayed = mode == "reduce-overhead"
            module.compile(mode=mode)


group(
    "backbone",
    Backbone,
    offers={"spec": LatentSpec, "conditions": ConditionSpec, "output": LatentSpec | None},
)
