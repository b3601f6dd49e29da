"""The denoiser: E[x0 | x_t], the one interface that solvers, guidance and every method see."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import copy
from typing import Protocol, TypeAlias

from torch import Tensor, nn

from anylatent.core.backbone import Backbone
from anylatent.core.codebook import Codebook
from anylatent.core.condition import Condition
from anylatent.core.files import UserError
from anylatent.core.latent import Latent, LatentSpec, combine
from anylatent.core.predictions import Prediction
from anylatent.core.registry import register
from anylatent.core.schedules import Schedule, Time, as_time

Denoise: TypeAlias = Callable[[Latent, Time], Latent]
"""x_t, t → x0: all that a solver needs."""

LOG_SNR_LIMIT = 20.0
"""Beyond this |λ| the noise (or the data) is below float32's resolution."""


NO_VARIANCE = (
    "this model has learned no variance: use variance=small or large, or train one with "
    "denoiser=learned_variance objective=hybrid"
)


class Network(Protocol):
    """Makes the backbone of a configuration, for what a denoiser wants of it."""

    def __call__(
        self, output: LatentSpec | None = None, maps: Mapping[str, int] | None = None
    ) -> Backbone:
        """`output`: the spec of what it returns, if not that of its input; `maps`: channels that
        are laid over those of the input, by name."""


class Denoiser(nn.Module, ABC):
    """x0 estimated from x_t; t has shape (), (B,) or (B, T).

    What wraps a denoiser, such as guidance, keeps it as `self.denoiser`.
    """

    schedule: Schedule

    @abstractmethod
    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent: ...

    @property
    def recalls(self) -> bool:
        """Whether it reads its last estimate, as the fixed condition `estimate` (2208.04202)."""
        inner = getattr(self, "denoiser", None)
        return isinstance(inner, Denoiser) and inner.recalls

    @property
    def completes(self) -> bool:
        """Whether it reads which entries of x_t are known exactly, as the fixed condition `given`:
        a map (B, N, 1) of ones and zeros."""
        inner = getattr(self, "denoiser", None)
        return isinstance(inner, Denoiser) and inner.completes

    def fresh(self) -> Denoiser:
        """For a new solution: with no memory of another. Itself, where nothing in it remembers."""
        inner = getattr(self, "denoiser", None)
        return self._around(inner.fresh()) if isinstance(inner, Denoiser) else self

    def select(self, index: Tensor) -> Denoiser | None:
        """For some samples of its batch, which may come again: its own values follow them.

        None for one that remembers a solution. What keeps values per sample overrides this.
        """
        if self.fresh() is not self:
            return None
        inner = getattr(self, "denoiser", None)
        chosen = inner.select(index) if isinstance(inner, Denoiser) else None
        return self if chosen is None else self._around(chosen)

    def _around(self, inner: Denoiser) -> Denoiser:
        """The same wrapper around another denoiser."""
        if inner is self.denoiser:
            return self
        twin = copy(self)
        twin._modules = {**self._modules, "denoiser": inner}  # a copy shares them
        return twin

    def with_variance(
        self, x: Latent, t: Time, cond: Condition | None = None
    ) -> tuple[Latent, Latent]:
        """x0, and the v of `learned_variance`; what wraps a denoiser leaves v as it is.

        Raises ValueError for one that has learned none.
        """
        inner = getattr(self, "denoiser", None)
        if not isinstance(inner, Denoiser):
            raise ValueError(NO_VARIANCE)
        return self(x, t, cond), inner.with_variance(x, t, cond)[1]

    def bind(self, cond: Condition | None) -> Denoise:
        """The denoiser under one condition; along one solution it recalls its last estimate."""
        own = self.fresh()
        if self.recalls:
            return Recalling(own, cond)
        return Bound(own, cond)


class Bound:
    """A denoiser under one condition, from which some samples may be selected."""

    def __init__(self, denoiser: Denoiser, cond: Condition | None) -> None:
        self.denoiser, self.cond = denoiser, cond

    @property
    def remembers(self) -> bool:
        """Whether a call depends on the calls before it."""
        return self.denoiser.fresh() is not self.denoiser

    def __call__(self, x: Latent, t: Time) -> Latent:
        found: Latent = self.denoiser(x, t, self.cond)
        return found

    def with_variance(self, x: Latent, t: Time) -> tuple[Latent, Latent]:
        return self.denoiser.with_variance(x, t, self.cond)

    def select(self, index: Tensor) -> Bound | None:
        chosen = self.denoiser.select(index)
        cond = None if self.cond is None else self.cond.select(index)
        return None if chosen is None else Bound(chosen, cond)


def restrict(denoise: Denoise, index: Tensor) -> Denoise | None:
    """The denoiser of some samples of a batch, which may come again; `index`: long, on the CPU.

    None where there is no such thing: for a plain function, and for one that remembers.
    """
    select = getattr(denoise, "select", None)
    found: Denoise | None = None if select is None else select(index)
    return found


class Recalling:
    """A denoiser that is told its estimate of the call before: self-conditioning."""

    def __init__(self, denoiser: Denoiser, cond: Condition | None) -> None:
        self.denoiser, self.cond = denoiser, cond or Condition()
        self.estimate: Latent | None = None

    remembers = True

    @property
    def forgetful(self) -> Bound:
        """The denoiser without an estimate, as at a first step, which it has learned as well."""
        return Bound(self.denoiser, self.cond)

    def __call__(self, x: Latent, t: Time) -> Latent:
        found: Latent = self.denoiser(x, t, self._known(x))
        self.estimate = found
        return found

    def with_variance(self, x: Latent, t: Time) -> tuple[Latent, Latent]:
        self.estimate, between = self.denoiser.with_variance(x, t, self._known(x))
        return self.estimate, between

    def _known(self, x: Latent) -> Condition:
        if self.estimate is None or self.estimate.batch != x.batch:
            return self.cond
        return self.cond.fixed(estimate=self.estimate)


def network_input(schedule: Schedule, x: Latent, t: Tensor, std: float) -> tuple[Latent, Tensor]:
    """c_in·x, of unit variance for data of deviation `std`, and c_noise of shape (B,) or (B, T).

    c_noise = -λ/4, clipped to [-5, 5], is the same for equal noise levels of any two schedules.
    """
    alpha, sigma = schedule.coefficients(t)
    c_noise = -schedule.log_snr(t).clamp(-LOG_SNR_LIMIT, LOG_SNR_LIMIT) / 4
    c_noise = c_noise.to(x.device, x.dtype)
    c_in = (alpha**2 * std**2 + sigma**2).rsqrt()
    return c_in * x, c_noise.expand(x.batch) if t.ndim == 0 else c_noise


class Preconditioned(Denoiser):
    """A backbone made a denoiser: x0 = c_skip·x + c_out·F(c_in·x, c_noise); see `network_input`.

    `data_std` is the deviation of the data. Schedules and predictions that learn are part of it.
    """

    def __init__(
        self,
        backbone: Backbone,
        schedule: Schedule,
        prediction: Prediction,
        data_std: float = 1.0,
    ) -> None:
        super().__init__()
        prediction.check(schedule)
        prediction.attach(backbone.spec)
        self.backbone, self.schedule, self.prediction = backbone, schedule, prediction
        self.data_std = data_std

    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        c_skip, c_out = self.prediction.inverse(self.schedule, as_time(t))
        return combine((c_skip, x), (c_out, self.predict(x, t, cond)))

    def predict(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        """The prediction F, on the subspace, in the precision of x."""
        scaled, c_noise = network_input(self.schedule, x, as_time(t), self.data_std)
        output: Latent = self.backbone(scaled, c_noise, cond)
        return self.prediction.finish(output.to(x.dtype).project())


@register("denoiser", "preconditioned")
def preconditioned(
    network: Network, schedule: Schedule, prediction: Prediction, data_std: float = 1.0
) -> Preconditioned:
    """A backbone that predicts noise, data, velocity, ...: x0 = c_skip·x + c_out·F (2206.00364)."""
    return Preconditioned(network(), schedule, prediction, data_std)


class Rounded(Preconditioned):
    """The clamping trick of Diffusion-LM (2205.14217): x0 is moved to the nearest token's vector.

    In training the estimate stays as it is; in sampling every step commits to tokens.
    """

    codebook: Codebook

    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        found = super().forward(x, t, cond)
        if self.training:
            return found
        nearest = self.codebook.latent(self.codebook.tokens(found), x.masks.get(self.codebook.name))
        return nearest.to(found.dtype)


@register("denoiser", "rounded")
def rounded(
    network: Network,
    schedule: Schedule,
    prediction: Prediction,
    codebook: Codebook | None = None,
    data_std: float = 1.0,
) -> Rounded:
    """Preconditioned; in sampling, x0 moves to the nearest token: clamping (2205.14217)."""
    if codebook is None:
        raise UserError(
            "denoiser=rounded needs latents that stand for tokens: choose an autoencoder with a "
            "codebook, such as embedding"
        )
    denoiser = Rounded(network(), schedule, prediction, data_std)
    denoiser.codebook = codebook
    return denoiser
