"""What all guidance has in common: something is added to x0, in an interval of noise levels.

    x0 = plain + change   where sigma/alpha lies in [sigma_min, sigma_max] (2404.07724), else plain

Each kind says what its plain estimate and its change are. The interval and the rescaling of
2305.08891 (§3.4, which moves the norm of x0 to that of the plain one) are here, for all of them.
Both are per sample: an interval where times are, a norm over all of a sample's numbers.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from anylatent.core.denoisers import Classify, Denoiser, Wrapper
from anylatent.core.latents import Condition, Latent, Noise, cat, combine
from anylatent.core.process import Time, as_time
from anylatent.core.registry import group, register

STACK = {"denoiser": ("guidance", "none")}
"""For `register`: in a configuration, what a guidance guides may be guided itself."""


TINY = torch.finfo(torch.float32).tiny


group(
    "guidance",
    Denoiser,
    offers={
        "denoiser": Denoiser,
        "noise": Noise,
        "classifiers": Mapping[str, Classify],
        "known": Sequence[str],
        "load_denoiser": Callable[[str], Denoiser],
    },
)


class Guided(Wrapper):
    """A denoiser whose x0 is changed where sigma/alpha lies in [sigma_min, sigma_max].

    `rescale` in [0, 1] moves the norm of the guided x0, per sample, to that of the plain one.
    Raises ValueError for settings out of their range.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
        rescale: float = 0.0,
    ) -> None:
        super().__init__(denoiser)
        if not 0 <= rescale <= 1:
            raise ValueError(f"rescale must lie in [0, 1], got {rescale}")
        if not 0 <= sigma_min <= sigma_max:
            raise ValueError(f"need 0 <= sigma_min <= sigma_max, got {sigma_min}, {sigma_max}")
        self.sigma_min, self.sigma_max, self.rescale = sigma_min, sigma_max, rescale

    @abstractmethod
    def guides(self, cond: Condition | None) -> bool:
        """Whether there is anything to change under this condition."""

    @abstractmethod
    def change(self, x: Latent, t: Tensor, cond: Condition | None) -> tuple[Latent, Latent]:
        """The plain x0, and what is added to it within the interval."""

    def plain(self, x: Latent, t: Tensor, cond: Condition | None) -> Latent:
        """x0 without guidance."""
        found: Latent = self.inner(x, t, cond)
        return found

    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        t = as_time(t)
        inside = self.inside(t)
        if not self.guides(cond) or not bool(inside.any()):
            return self.plain(x, t, cond)
        plain, change = self.change(x, t, cond)
        guided = combine((1.0, plain), (inside, change))
        if self.rescale == 0:
            return guided
        known, found = (self.noisy(z, t).norm() for z in (plain, guided))
        ratio = known / found.clamp(min=TINY)
        factor = 1 - self.rescale + self.rescale * ratio
        if t.ndim == 2:
            factor = torch.where(self.schedule.sigma(t) > 0, factor.to(t)[:, None], 1.0)
        return combine((factor, guided))

    def noisy(self, x: Latent, t: Tensor) -> Latent:
        """x without the entries that are known, at a time 0 of their own: what guidance moves."""
        return x if t.ndim < 2 else combine(((self.schedule.sigma(t) > 0).to(t), x))

    def inside(self, t: Tensor) -> Tensor:
        """1 where a time lies in the interval and 0 elsewhere, in the shape of t."""
        sigma = torch.exp(-0.5 * self.schedule.log_snr(t))
        return ((sigma >= self.sigma_min) & (sigma <= self.sigma_max)).to(sigma)


def branches(
    denoiser: Denoiser, x: Latent, t: Tensor, conditions: Sequence[Condition]
) -> list[Latent]:
    """x0 of one x under each of several conditions, by one call of the denoiser."""
    count = len(conditions)
    times = torch.cat([t] * count) if t.ndim else t
    output: Latent = denoiser(cat([x] * count), times, Condition.stack(*conditions))
    return [output.select(slice(i * x.batch, (i + 1) * x.batch)) for i in range(count)]


@register("guidance", "none")
def no_guidance(denoiser: object) -> object:
    """The denoiser as it is, under its condition."""
    return denoiser
