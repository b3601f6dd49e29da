"""Contracts of denoisers and guidance, against exact Gaussians."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from anylatent.core.denoisers import Denoiser, GaussianDenoiser, constant
from anylatent.core.latents import Condition, Latent, LatentSpec
from anylatent.core.process import Schedule, Time
from anylatent.core.process.schedules import RectifiedFlow, VariancePreserving
from anylatent.core.testing.examples import SPECS, alone, begin, distance, in_subspace
from anylatent.core.testing.process import close


def check_denoiser(denoiser: Denoiser, spec: LatentSpec, cond: Condition | None = None) -> None:
    """x0 is on the subspace, x itself at t = 0, finite at t = 1, one sample at a time.

    Where latents have entries, times for each, (B, T), mean the same as one where they agree, leave
    an entry at t = 0 as it is, and are those of each sample; one without `entry_times` may refuse.
    """
    name, schedule = type(denoiser).__name__, denoiser.schedule
    with torch.no_grad():
        for dtype in (torch.float64, torch.float32):
            x, _ = begin(spec, schedule, dtype)
            for t in (0.0, 0.3, 1.0):
                joint = denoiser(x, t, cond)
                assert joint.dtype == dtype, f"{name}: {dtype} in, {joint.dtype} out"
                assert in_subspace(joint), f"{name} leaves the subspace at t = {t}"
                each = torch.full((x.batch,), t, dtype=torch.float64)
                scale = max(1.0, float(joint.norm().max()))
                allowed = (1e-10 if dtype == torch.float64 else 1e-5) * scale
                gap = distance(denoiser(x, each, cond), joint)
                assert gap <= allowed, f"{name}: one time per sample changes x0 by {gap:.3g}"
                _check_each(denoiser, x, each[0], cond, joint, allowed)
                _check_entry_times(denoiser, x, t, cond, joint, allowed)
            clean = denoiser(x, 0.0, cond)
            gap = distance(clean, x / schedule.alpha(0.0)) / float(x.norm().max())
            assert gap <= 1e-5, f"{name}: x0 at t = 0 is not x/alpha, off by {gap:.3g}"


def _check_each(
    denoiser: Denoiser,
    x: Latent,
    t: Tensor,
    cond: Condition | None,
    joint: Latent,
    allowed: float,
) -> None:
    """Samples alone: without the padding of others, but for a denoiser with values per sample."""
    name = type(denoiser).__name__
    for i in range(x.batch):
        row = slice(i, i + 1)
        own = denoiser.select(torch.tensor([i]))
        own_cond = None if cond is None else cond.select(row)
        if own is None or own is denoiser:
            mine, wanted = alone(x, i), alone(joint, i)
        else:
            mine, wanted = x.select(row), joint.select(row)
        length = next(iter(mine.parts.values())).shape[1]
        when = t[row, :length] if t.ndim == 2 else t
        gap = distance((own or denoiser)(mine, when, own_cond), wanted)
        assert gap <= allowed, f"{name}: x0 of sample {i} alone differs by {gap:.3g}"


def _check_entry_times(
    denoiser: Denoiser,
    x: Latent,
    t: float,
    cond: Condition | None,
    joint: Latent,
    allowed: float,
) -> None:
    if not x.spec.has_entries:
        return
    name, count = type(denoiser).__name__, x.entries
    same = torch.full((x.batch, count), t, dtype=torch.float64)
    try:
        found = denoiser(x, same, cond)
    except (ValueError, RuntimeError) as error:
        assert not denoiser.entry_times, f"{name} has times for each entry, but refuses: {error}"
        return
    gap = distance(found, joint)
    assert gap <= allowed, f"{name}: one time per entry changes x0 by {gap:.3g}"
    own = same * torch.linspace(0.2, 1, count, dtype=torch.float64)
    own[:, 1] = 0
    found = denoiser(x, own, cond)
    assert in_subspace(found), f"{name} leaves the subspace at times for each entry"
    clean = x / denoiser.schedule.alpha(0.0)
    gaps = [float((found[n] - clean[n])[:, 1].abs().max()) for n in x.parts]
    assert max(gaps) <= max(allowed, 1e-5), f"{name}: an entry at t = 0 moves by {max(gaps):.3g}"
    _check_each(denoiser, x, own, cond, found, allowed)


class ConditionalGaussian(Denoiser):
    """E[x0 | x_t] for data N(c, 0.3²), c the condition "mean", 0 where it is dropped."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule, self.calls = schedule, 0

    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        self.calls += 1
        mean = torch.zeros(x.batch, dtype=torch.float64)
        if cond is not None and cond:
            value = cond.values["mean"]
            assert isinstance(value, Tensor)
            mean = torch.where(cond.keep["mean"], value.double(), 0)
        centre = mean * constant(x, 1.0)
        return GaussianDenoiser(self.schedule, centre, 0.3).forward(x, t)


def check_guidance(factory: Callable[[Denoiser], Denoiser], unconditional: bool = False) -> None:
    """A guided denoiser is a denoiser, also along a solution, whatever it remembers there.

    It is the plain one where there is no condition, unless `unconditional` says that it guides
    without one too.
    """
    for schedule in (VariancePreserving(), RectifiedFlow()):
        plain = ConditionalGaussian(schedule)
        guided = factory(plain)
        name = type(guided).__name__
        assert guided.schedule is schedule, f"{name} does not carry its denoiser's schedule"
        cond = Condition({"mean": torch.tensor([1.0, -0.5, 0.2, 2.0])})
        for key, spec in SPECS.items():
            check_denoiser(guided, spec, cond)
            _check_memory(guided, spec, cond, f"{name} on {key}")
            x, _ = begin(spec, schedule, torch.float64)
            for nothing in () if unconditional else (None, Condition()):
                gap = distance(guided(x, 0.4, nothing), plain(x, 0.4))
                assert gap == 0, f"{name} on {key} without a condition is not the plain denoiser"
        x, _ = begin(SPECS["image"], schedule, torch.float64)
        stacked = factory(guided)(x, 0.4, cond)
        assert in_subspace(stacked), f"{name} on {name} fails"
        if not unconditional:
            dropped = guided(x, 0.4, cond.null())
            close(dropped["z"], plain(x, 0.4)["z"], f"{name} with all conditions dropped", 1e-10)


def _check_memory(guided: Denoiser, spec: LatentSpec, cond: Condition, where: str) -> None:
    """Along a solution no sample depends on its neighbours, no solution on another."""
    each = torch.tensor([1.0, 0.8, 1.0, 0.6], dtype=torch.float64)
    times = each * torch.tensor([[0.9], [0.5], [0.5], [0.4], [0.3], [0.1]], dtype=torch.float64)
    times[3, :2] = 0.03  # a step that two samples take back
    x, _ = begin(spec, guided.schedule, torch.float64)
    first, second = guided.bind(cond), guided.bind(cond)
    with torch.no_grad():
        along = [first(x, t) for t in times]
        again = [second(x, t) for t in times]
        for i in range(x.batch):
            lonely = guided.bind(cond.select(slice(i, i + 1)))
            for t, together in zip(times[:, i], along, strict=True):
                gap = distance(lonely(alone(x, i), t), alone(together, i))
                assert gap < 1e-8, f"{where}: sample {i} alone differs by {gap:.3g}"
    gaps = [distance(a, b) for a, b in zip(along, again, strict=True)]
    assert max(gaps) == 0, f"{where}: a solution depends on the one before, by {max(gaps):.3g}"
