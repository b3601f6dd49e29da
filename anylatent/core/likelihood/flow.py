"""The exact log-likelihood of a latent: the probability-flow ODE of a denoiser (2011.13456).

With z = x/√(alpha² + sigma²) and the angle φ = atan(sigma/alpha) every schedule is one equation,

    dz/dφ = v = (cos φ·z - x0)/sin φ,   x0 = denoise(x, t),   d log p(z)/dφ = -tr ∂v/∂z,

smooth at both ends, pure noise (φ = π/2) included, and at rest for data N(0, 1). The trace is that
of v restricted to the subspace, of `latent.dim` dimensions; hence, with x₁ the latent at t = 1,

    log p(x0) = log N(x₁; 0, sigma(1)²) + log |∂x₁/∂x0|.

The prior is what samplers start from: log p is that of the samples, alpha(1) neglected as there.
Where data lie on a set without volume the density at t = 0 is infinite, and a network was never
trained there. So the flow starts at a small noise level, and p is the density of samples plus
Gaussian noise of deviation ρ = exp(-log_snr/2). For data N(μ, s²) this changes a sample's log p by
about ρ²/(2s²) nats per dimension, the mean by ρ⁴/(4s⁴). Figures compare at one level only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from anylatent.core.denoisers import Estimate
from anylatent.core.latents import Coefficient, Latent, Noise, choose, combine
from anylatent.core.likelihood.normal import log_normal
from anylatent.core.process import Schedule, angle_log_snr, as_time
from anylatent.core.solvers import MOST_STEPS, NODES, attempt, resized
from anylatent.core.solvers import excess as moved_excess

State: TypeAlias = tuple[Latent, Tensor]
"""z and the log-volume ∫ tr ∂v/∂z dφ, shape (B,), float64; or the slopes of both."""

Probes: TypeAlias = Sequence[list[Tensor]]
"""Stacks of K vectors, one tensor (K, B, ...) per field; the trace is Σ v·Jv over all of them."""

AT_ONCE = 32  # unit vectors per backward pass


@dataclass(frozen=True, eq=False)
class Likelihood:
    """log p(x0) = log_prior + log_volume per sample, in nats, shape (B,), float64.

    `x1`: the latent at t = 1 from which the flow leads to x0 (the inversion of x0).
    `log_prior`: log N(x₁; 0, sigma(1)²). `log_volume`: log |∂x₁/∂x0|.
    `evaluations`: calls of the denoiser that a sample needed, shape (B,), int64.
    """

    x1: Latent
    log_prior: Tensor
    log_volume: Tensor
    evaluations: Tensor

    @property
    def log_p(self) -> Tensor:
        return self.log_prior + self.log_volume

    @property
    def bits_per_dim(self) -> Tensor:
        """-log₂ p(x0) per degree of freedom, shape (B,)."""
        return -self.log_p / (self.x1.dim.clamp(min=1) * math.log(2))


@torch.no_grad()
def log_likelihood(
    denoise: Estimate,
    schedule: Schedule,
    x0: Latent,
    *,
    noise: Noise | None,
    probes: int = 1,
    steps: int | None = None,
    tolerance: float = 1e-4,
    log_snr: float = 14.0,
) -> Likelihood:
    """log p(x0) under the probability flow of `denoise`, guided or not, on any schedule.

    With a `noise` the trace is estimated without bias by Hutchinson's method, from `probes`
    vectors per sample that stay the same along the flow; each costs one backward pass per
    evaluation. With `noise=None` it is exact, at a backward pass per coordinate.

    `steps` fixed steps of order 5; or, with None, as many as each sample needs for an error per
    step and degree of freedom below `tolerance`, of z relative to 1 + |z| and of log p in nats.
    A sample's steps, hence its result, depend neither on its neighbours nor on its padding.
    `log_snr` is the noise level of x0 (see the module).

    Raises ValueError for bad arguments and for a denoiser that keeps no gradient (one under
    `torch.no_grad`), RuntimeError where the tolerance is out of reach.
    """
    _check(schedule, x0, noise, probes, steps, tolerance, log_snr)
    vectors = _basis(x0) if noise is None else _random(x0, noise, probes)
    flow = _Flow(denoise, schedule, vectors, 1 if noise is None else probes)
    start, alpha, sigma = _ends(schedule, x0, log_snr)
    ends = (start, torch.atan2(sigma, alpha))
    state = (start.cos() * x0, torch.zeros_like(start))
    (z, volume), evaluations = _along(flow, state, ends, steps, tolerance)
    size = (alpha**2 + sigma**2).sqrt()
    x1, volume = size * z, volume + x0.dim * (start.cos() * size).log()
    return Likelihood(x1, log_normal(x1, sigma), volume, evaluations)


def _check(
    schedule: Schedule,
    x0: Latent,
    noise: Noise | None,
    probes: int,
    steps: int | None,
    tolerance: float,
    log_snr: float,
) -> None:
    if x0.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"likelihoods need latents in float32 or float64, got {x0.dtype}")
    if probes < 1 or (noise is None and probes != 1):
        raise ValueError(
            f"probes={probes}: give a Noise and at least 1; with noise=None the trace is exact and "
            "draws none"
        )
    if steps is not None and steps < 1:
        raise ValueError(f"steps={steps}: at least 1, or None to choose them by the tolerance")
    if not tolerance > 0:
        raise ValueError(f"the tolerance must be positive, got {tolerance}")
    lowest = float(schedule.log_snr(1.0))
    if not lowest < log_snr < math.inf:
        raise ValueError(
            f"log_snr={log_snr}: the level of x0 must be finite and above {lowest:.4g}, that of "
            f"{type(schedule).__name__} at t = 1"
        )


def _ends(schedule: Schedule, x0: Latent, log_snr: float) -> tuple[Tensor, Tensor, Tensor]:
    """The angle at which the flow begins, and alpha and sigma at t = 1, each of shape (B,)."""
    blank = torch.zeros(x0.batch, device=x0.device)
    start = torch.atan(torch.exp(as_time(blank - log_snr / 2)))
    return start, *schedule.coefficients(as_time(blank + 1))


# ---- the flow ---------------------------------------------------------------------------------
class _Flow:
    """dz/dφ and its divergence, averaged over `count` sets of probes."""

    def __init__(self, denoise: Estimate, schedule: Schedule, probes: Probes, count: int) -> None:
        self.denoise, self.schedule, self.probes, self.count = denoise, schedule, probes, count

    def __call__(self, z: Latent, angle: Tensor) -> State:
        """Both at angles of shape (B,)."""
        with torch.enable_grad():
            z = z.map(lambda x: x.detach().requires_grad_())
            v = self._velocity(z, angle)
        return v.detach(), self._divergence(v, z)

    def _velocity(self, z: Latent, angle: Tensor) -> Latent:
        t = self.schedule.time(angle_log_snr(angle))
        alpha, sigma = self.schedule.coefficients(t)
        size = (alpha**2 + sigma**2).sqrt()
        x0 = self.denoise(size * z, t)
        if not any(x.requires_grad for x in x0.parts.values()):
            raise ValueError(
                "the denoiser's output keeps no gradient, without which there is no trace: let it "
                "neither detach its input nor run under torch.no_grad or torch.inference_mode"
            )
        return combine((alpha / sigma, z), (-size / sigma, x0))

    def _divergence(self, v: Latent, z: Latent) -> Tensor:
        outputs, inputs = list(v.parts.values()), list(z.parts.values())
        total = as_time(torch.zeros(z.batch, device=z.device))
        for index, stack in enumerate(self.probes, start=1):
            many, again = len(stack[0]) > 1, index < len(self.probes)
            vectors = stack if many else [part[0] for part in stack]
            # vᵀJ by the backward pass, which every network has
            rows = torch.autograd.grad(
                outputs, inputs, vectors, retain_graph=again, is_grads_batched=many
            )
            for row, vector in zip(rows, vectors, strict=True):
                products = (row * vector).reshape(len(stack[0]), z.batch, -1)
                total = total + products.sum((0, 2), dtype=total.dtype)
        return total / self.count


# ---- probes -----------------------------------------------------------------------------------
def _basis(like: Latent) -> Probes:
    """The projected unit vectors e of all coordinates: Σ (Pe)·J(Pe) = tr PJP, the exact trace."""
    stacks = []
    for name, x in like.parts.items():
        for units in torch.split(torch.eye(x[0].numel()).to(x), AT_ONCE):
            count = len(units)
            zero = like.zeros().select(torch.arange(like.batch).repeat(count))
            value = units.repeat_interleave(like.batch, 0).reshape(-1, *x.shape[1:])
            unit = zero.replace(**{name: value})
            stacks.append([p.reshape(count, -1, *p.shape[1:]) for p in unit.parts.values()])
    return stacks


def _random(like: Latent, noise: Noise, count: int) -> Probes:
    drawn = [draw_probe(like, noise) for _ in range(count)]
    return [[x[None] for x in probe.parts.values()] for probe in drawn]


def draw_probe(like: Latent, noise: Noise) -> Latent:
    """A random v with E[v·vᵀ] the identity on the subspace, and v·v = dim in every field.

    Random signs (Hutchinson 1989); on a centred field, which signs would leave, a direction drawn
    uniformly. So the trace of a multiple of the identity per field is met without error.
    """
    parts = {}
    drawn = noise.like(like)
    for name in drawn.parts:
        part = drawn.take([name])
        if like.spec.fields[name].centred:
            norm = part.norm()  # zero for a single point, which has no direction
            part = part * (part.dim.to(norm).sqrt() / norm.clamp(min=torch.finfo(norm.dtype).tiny))
        else:
            part = part.map(lambda x: torch.where(x < 0, -1.0, 1.0).to(x)).project()
        parts[name] = part[name]
    return Latent(parts, like.masks, like.spec)


# ---- integration ------------------------------------------------------------------------------
def _step(
    flow: _Flow, state: State, slope: State, angle: Tensor, h: Tensor
) -> tuple[State, State, State]:
    """The state at angle + h, the estimate of its error, and the slope there."""
    return attempt(lambda point, part: flow(point[0], angle + part * h), _sum, state, slope, h)


def _sum(*terms: tuple[Coefficient, State]) -> State:
    volumes = [c * state[1] for c, state in terms]
    return combine(*((c, state[0]) for c, state in terms)), torch.stack(volumes).sum(0)


def _along(
    flow: _Flow, state: State, ends: tuple[Tensor, Tensor], steps: int | None, tolerance: float
) -> tuple[State, Tensor]:
    """The state at the last angle, and how often the flow was asked, (B,)."""
    if steps is None:
        return _adaptive(flow, state, ends, tolerance)
    return _fixed(flow, state, ends, steps)


def _fixed(
    flow: _Flow, state: State, ends: tuple[Tensor, Tensor], steps: int
) -> tuple[State, Tensor]:
    """Steps between Chebyshev's points, which crowd at both ends.

    At one scales are small; at the other networks, which see log tan φ, change fast with φ.
    """
    first, last = ends
    shares = [math.sin(math.pi * i / (2 * steps)) ** 2 for i in range(steps)]
    angles = [*(first + share * (last - first) for share in shares), last]
    slope = flow(state[0], angles[0])
    for angle, after in zip(angles[:-1], angles[1:], strict=True):
        state, _, slope = _step(flow, state, slope, angle, after - angle)
    evaluations = torch.full_like(last, 1 + len(NODES) * steps, dtype=torch.int64)
    return state, evaluations


def _adaptive(
    flow: _Flow, state: State, ends: tuple[Tensor, Tensor], tolerance: float
) -> tuple[State, Tensor]:
    """Each sample at its own angle with its own step; those that are done stand still."""
    angle, last = ends
    h = angle  # the first step doubles the noise level
    slope = flow(state[0], angle)
    evaluations = torch.ones_like(angle, dtype=torch.int64)
    for _ in range(MOST_STEPS):
        left = last - angle
        if not bool((left > 0).any()):
            return state, evaluations
        h = torch.minimum(h, left)
        after, error, slope_after = _step(flow, state, slope, angle, h)
        excess = _excess(after, error, tolerance)
        good = excess <= 1
        if bool((~good & (h < 1e-7 * angle)).any()):
            break
        state, slope = _where(good, after, state), _where(good, slope_after, slope)
        evaluations = evaluations + len(NODES) * (left > 0)
        angle = torch.where(good, torch.where(h < left, angle + h, last), angle)
        h = resized(h, excess)
    raise RuntimeError(
        f"tolerance={tolerance} is out of reach in {state[0].dtype} for "
        f"{int((left > 0).sum())} of {len(left)} samples, or the denoiser or x0 is not finite: "
        "raise the tolerance, lower log_snr or give `steps`"
    )


def _excess(after: State, error: State, tolerance: float) -> Tensor:
    """The error of a step over the tolerance, shape (B,); infinite where it is not a number."""
    of_volume = error[1].abs() / after[0].dim.clamp(min=1) / tolerance
    moved = moved_excess(error[0], after[0], tolerance)
    return torch.maximum(moved, of_volume).nan_to_num(nan=torch.inf)


def _where(good: Tensor, new: State, old: State) -> State:
    return choose(good, new[0], old[0]), torch.where(good, new[1], old[1])
