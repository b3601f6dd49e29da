"""Integrators of a polynomial: DPM-Solver++, UniPC, DEIS, gDDIM and Adams as one family.

They differ in what is a polynomial (see `multistep`), in which coordinate, of what order, with a
corrector or not, with noise or without. Where a published method of order 2 replaces the mean of a
straight line over a step by its value at one point, `linear` says at which.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from anylatent.core.process import Schedule
from anylatent.core.registry import register
from anylatent.core.solvers.multistep import (
    Frame,
    Multistep,
    Rule,
    lagrange,
    of_data,
    of_noise,
    of_velocity,
    over_angle,
    over_power,
    shifted,
    usable,
)

Coordinate: TypeAlias = Callable[[Schedule, Tensor], Tensor]
"""Schedule, log-SNR → u."""

FRAMES: dict[str, tuple[Callable[[Tensor, Tensor], Frame], Rule]] = {
    "data": (of_data, partial(over_power, power=1.0)),
    "noise": (of_noise, partial(over_power, power=-1.0)),
    "velocity": (of_velocity, over_angle),
}
COORDINATES: dict[str, Coordinate] = {
    "log_snr": lambda schedule, log_snr: log_snr,
    "ratio": lambda schedule, log_snr: torch.exp(-0.5 * log_snr),
    "time": lambda schedule, log_snr: schedule.time(log_snr),
}


MIDDLE = 2.0


def _flow_time(log_snr: Tensor) -> Tensor:
    """ρ/(ρ + MIDDLE): the time of a rectified flow from so much noise."""
    return 1 / (1 + MIDDLE * torch.exp(0.5 * log_snr))


class Exponential(Multistep):
    """The polynomial of degree `degree` - 1 in `coordinate`, integrated exactly.

    `of`: the name of what it is. `corrector`: how many earlier points the corrector uses beside
    the new one, 0 for none. `linear`: where in a step, between 0 and 1 (h: its length in half the
    log-SNR), the mean of a straight line lies; exactly where it is None. Solutions of fewer than
    `gently` steps predict along straight lines at most; their corrector stays as it is. With fewer
    than `plain` steps the last one returns x0, and extrapolates nothing.
    """

    def __init__(
        self,
        degree: int,
        coordinate: Coordinate = COORDINATES["log_snr"],
        *,
        of: str = "data",
        corrector: int = 0,
        eta: float = 0.0,
        linear: Callable[[Tensor], Tensor] | None = None,
        gently: int = 0,
        plain: int = 0,
    ) -> None:
        if eta < 0:
            raise ValueError(f"eta must not be negative, got {eta}")
        self.coordinate, self.corrector, self.linear = coordinate, corrector, linear
        self.degree, self.eta, self.gently, self.plain = degree, eta, gently, plain
        self._frame, self._rule = FRAMES[of]
        if eta:
            self._frame = partial(of_data, eta=eta)
            self._rule = partial(over_power, power=1 + eta**2)
        self.order = 1 if eta else max(degree, corrector + 1 if corrector else 0)

    def frame(self, alpha: Tensor, sigma: Tensor) -> Frame:
        frame = self._frame(alpha, sigma)
        if len(alpha) > self.plain:
            return frame
        ends = torch.zeros_like(frame.c_x, dtype=torch.bool)
        ends[-1] = sigma[-1] == 0
        return frame._replace(
            c_x=frame.c_x.where(~ends, 0.0),
            c_0=frame.c_0.where(~ends, alpha[1:]),
            gain=frame.gain.where(~ends, 0.0),
        )

    def averages(self, schedule: Schedule, times: Tensor) -> tuple[Tensor, list[Tensor]]:
        log_snr, lower = schedule.log_snr(times), self._lower(len(times) - 1)
        degree, corrector = self.degree - lower, self.corrector
        restarts, u = self.restarts(schedule, times), self.coordinate(schedule, log_snr)
        kept = max(degree, corrector) + 1 if corrector else degree
        means = log_snr.new_zeros(kept, *log_snr[1:].shape)
        means[0] = 1
        for count in range(2, degree + 1):
            means = self._improve(means, schedule, log_snr, u, count, 0)
        made = _later(means)
        corrected = made
        for count in range(2, corrector + 2):
            corrected = self._improve(corrected, schedule, log_snr, u, count, 1)
        if not bool(restarts.any()):
            return means, [corrected - made]
        order, rows = self.order_of(len(times) - 1), torch.arange(len(times) - 1)
        rows = rows.reshape(-1, *[1] * restarts.ndim)
        found = self._improve(made, schedule, log_snr, u, 2, 1)
        found = self._improve(found, schedule, log_snr, u, 3, 1)
        corrected = torch.where(restarts & (rows > 0) & (rows < order - 1), found, corrected)
        corrections, made = [corrected - made], _later(corrected)
        found = self._improve(made, schedule, log_snr, u, 3, 2)
        first = restarts & (rows == 2) & (order > 3)
        return means, [*corrections, torch.where(first, found - made, 0.0)]

    def order_of(self, steps: int) -> int:
        return self.order - self._lower(steps)

    def _lower(self, steps: int) -> int:
        return max(self.degree - 2, 0) if steps < self.gently else 0

    def _improve(
        self, means: Tensor, schedule: Schedule, log_snr: Tensor, u: Tensor, count: int, back: int
    ) -> Tensor:
        """The means over the steps (over those before with `back` = 1) through `count` points."""
        last, first = len(u) - 1, count - 1
        if first >= last:
            return means
        nodes = [u[first - k : last - k] for k in range(count)]
        ends = log_snr[first - back : last - back], log_snr[first + 1 - back : last + 1 - back]
        points, weights = self._mean(*ends, count)
        found = lagrange(self.coordinate(schedule, points), nodes, weights)
        if not bool(found.isfinite().all()):
            found = usable(found, self._from_pure_noise(log_snr, first, count, ends))
        return torch.cat([means[:, :first], usable(found, means[:, first:])], 1)

    def _from_pure_noise(
        self, log_snr: Tensor, first: int, count: int, ends: tuple[Tensor, Tensor]
    ) -> Tensor:
        """The same in a coordinate that is finite there, for steps that don't end in the data."""
        points, weights = self._rule(*ends)
        nodes = [_flow_time(log_snr[first - k : len(log_snr) - 1 - k]) for k in range(count)]
        found = lagrange(_flow_time(points), nodes, weights)
        return found.where(ends[1] < torch.inf, torch.nan)

    def _mean(self, start: Tensor, end: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
        """Log-SNRs and weights of the mean over steps."""
        if self.linear is None or nodes != 2:
            return self._rule(start, end)
        h = 0.5 * (end - start)
        return (start + 2 * h * self.linear(h))[None], torch.ones(1, dtype=h.dtype)


def _later(means: Tensor) -> Tensor:
    """Weights of the mean over a step, on the values that the next step has."""
    return shifted(shifted(means, 1), 1, axis=1)


def _middle(h: Tensor) -> Tensor:
    """The middle of a step: B(h) = exp(h) - 1 of UniPC, and the choice of DPM-Solver."""
    return torch.full_like(h, 0.5)


def _longer(h: Tensor) -> Tensor:
    """B(h) = h of UniPC."""
    return 0.5 * h / -torch.expm1(-h)


LINEAR = {"bh1": _longer, "bh2": _middle}


@register("solver", "dpmpp_2m")
def dpmpp_2m() -> Exponential:
    """DPM-Solver++ 2M (2211.01095): second order, x0 linear in the log-SNR."""
    return Exponential(2, linear=_middle)


@register("solver", "dpmpp_3m")
def dpmpp_3m() -> Exponential:
    """DPM-Solver++ 3M: third order, x0 quadratic in the log-SNR, with the exact weights."""
    return Exponential(3)


@register("solver", "dpmpp_2m_sde")
def dpmpp_2m_sde(eta: float = 1.0) -> Exponential:
    """SDE-DPM-Solver++ 2M (2211.01095), on one Brownian path per sample."""
    return Exponential(2, linear=_middle, eta=eta)


@register("solver", "dpmpp_3m_sde")
def dpmpp_3m_sde(eta: float = 1.0) -> Exponential:
    """The same with x0 quadratic in the log-SNR."""
    return Exponential(3, eta=eta)


@register("solver", "gddim")
def gddim(eta: float = 1.0) -> Exponential:
    """gDDIM (2206.05564): the SDE of noise `eta` with x0 constant over a step.

    DDIM at 0, ancestral sampling at 1, on one Brownian path per sample.
    """
    return Exponential(1, eta=eta)


@register("solver", "unipc")
def unipc(order: int = 3, variant: str = "bh2", corrector: bool = True) -> Exponential:
    """UniPC (2302.04867): x0 in the log-SNR, predictor and corrector of orders 1 to 3.

    `variant` bh1 or bh2 is the function B(h), which only straight lines depend on.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"unipc has orders 1, 2 and 3, got {order}")
    if variant not in LINEAR:
        raise ValueError(f"variant must be {' or '.join(LINEAR)}, got {variant}")
    return Exponential(order, corrector=order if corrector else 0, linear=LINEAR[variant])


@register("solver", "deis")
def deis(order: int = 3, coordinate: str = "time") -> Exponential:
    """DEIS (2204.13902): the noise as a polynomial, exactly integrated; orders 1 to 3.

    `coordinate`: `time` is the paper's tAB, `ratio` (sigma/alpha) its ρAB, which depends on no
    schedule.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"deis has orders 1 to 3, got {order}")
    if coordinate not in COORDINATES:
        raise ValueError(f"coordinate must be one of {', '.join(COORDINATES)}, got {coordinate}")
    return Exponential(order, COORDINATES[coordinate], of="noise")


@register("solver", "dpm_solver_m")
def dpm_solver_m(order: int = 2) -> Exponential:
    """DPM-Solver in multistep form (2206.00927): the noise as a polynomial in the log-SNR."""
    if order not in (1, 2, 3):
        raise ValueError(f"dpm_solver_m has orders 1, 2 and 3, got {order}")
    return Exponential(order, of="noise", linear=_middle)


@register("solver", "adams")
def adams(order: int = 4, corrector: bool = True) -> Exponential:
    """Adams, Bashforth and Moulton's method for v in the angle of the noise level.

    v = cos φ·noise - sin φ·x0 is smooth at both ends, and zero for data N(0, 1); it is integrated
    over φ as a polynomial in ρ/(ρ + 2). A corrector of this order costs nothing (2302.04867), and
    its predictor has one less, but two at least: extrapolation is what fails where v turns fast.
    Solutions of fewer than 16 steps predict with two, and those of fewer than 4 end in x0 itself.
    """
    if order not in (1, 2, 3, 4):
        raise ValueError(f"adams has orders 1 to 4, got {order}")
    return Exponential(
        min(order, max(order - 1, 2)) if corrector else order,
        lambda schedule, log_snr: _flow_time(log_snr),
        of="velocity",
        corrector=order - 1 if corrector else 0,
        gently=16,
        plain=4,
    )


ADAMS_BASHFORTH: tuple[tuple[float, ...], ...] = (
    (1.0, 0.0, 0.0, 0.0),
    (3 / 2, -1 / 2, 0.0, 0.0),
    (23 / 12, -16 / 12, 5 / 12, 0.0),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@register("solver", "plms")
class PLMS(Multistep):
    """Pseudo linear multistep (2202.09778): DDIM's steps with Adams and Bashforth's noise.

    Its four weights suppose equal steps; in sigma/alpha they are not, which leaves second order.
    """

    order = 2

    def frame(self, alpha: Tensor, sigma: Tensor) -> Frame:
        return of_noise(alpha, sigma)

    def averages(self, schedule: Schedule, times: Tensor) -> tuple[Tensor, list[Tensor]]:
        rows = torch.arange(len(times) - 1).clamp(max=len(ADAMS_BASHFORTH) - 1)
        means = torch.tensor(ADAMS_BASHFORTH, dtype=times.dtype)[rows].mT
        return means.reshape(*means.shape, *[1] * (times.ndim - 1)).expand(-1, *times[1:].shape), []
