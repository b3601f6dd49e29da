"""Contracts of time samplers, weightings and features of the noise level."""

from __future__ import annotations

import itertools

import torch

from anylatent.core.denoisers import Preconditioned
from anylatent.core.latents import Condition, ConditionSpec, Latent, Noise
from anylatent.core.nn.backbone import Backbone
from anylatent.core.nn.embedding import Features
from anylatent.core.nn.guests import Guest
from anylatent.core.objectives import Bound, Weighting
from anylatent.core.process import LogitNormal, Prediction, Schedule, Times, time_limits
from anylatent.core.process.predictions import (
    DataPrediction,
    EDMPrediction,
    NoisePrediction,
    VPrediction,
)
from anylatent.core.process.schedules import RectifiedFlow, VariancePreserving
from anylatent.core.process.times import LogNormal, Uniform
from anylatent.core.testing.examples import SPECS
from anylatent.core.testing.process import SCHEDULES, close


def check_times(times: Times) -> None:
    """The density is that of the quantiles, samples follow it and keep |λ| ≤ 20; so do times for
    each entry, independent of one another."""
    name = type(times).__name__
    u = torch.linspace(0.02, 0.98, 97, dtype=torch.float64)
    for kind in SCHEDULES:
        schedule, where = kind(), f"{name} on {kind.__name__}"
        leaf = u.clone().requires_grad_()
        t = times.quantile(leaf, schedule)
        assert bool((t.detach().diff() >= 0).all()), f"{where}: quantiles do not rise"
        (slope,) = torch.autograd.grad(t.sum(), leaf)
        t = t.detach()
        inner = (t > 1e-6) & (t < 1 - 1e-6) & (slope > 0)
        product = (times.density(t, schedule) * slope)[inner]
        close(product, torch.ones_like(product), f"{where}: density × d quantile/du = 1", 1e-6)
        _check_samples(times, schedule, where)
        _check_entries(times, schedule, where)


def check_features(features: Features) -> None:
    """One vector of `size` for each number, finite and steady, in float32 at least; noise levels a
    hundredth of the range apart differ."""
    name = type(features).__name__
    levels = torch.linspace(-5, 5, 101)
    found = features(levels)
    assert found.shape == (101, features.size), f"{name}: {tuple(found.shape)} for 101 levels"
    assert features(levels.view(101, 1)).shape == (101, 1, features.size), f"{name}: more axes"
    assert bool(found.isfinite().all()), f"{name}: not finite"
    assert torch.equal(features(levels), found), f"{name}: differs from call to call"
    assert features(levels.bfloat16()).dtype == torch.float32, f"{name}: less than float32"
    apart = float(torch.pdist(found).min())
    assert apart > 0.1, f"{name}: two levels have features only {apart:.2g} apart"


def _check_samples(times: Times, schedule: Schedule, where: str) -> None:
    count = 2000
    drawn = times.sample(Noise.of(0, count), schedule)
    assert drawn.shape == (count,), f"{where}: samples of shape {tuple(drawn.shape)}"
    _check_law(times, drawn, schedule, where)
    again = times.sample(Noise.of(0, [7, 3]), schedule)
    close(again, drawn[[7, 3]], f"{where}: a sample's time depends on its neighbours", 1e-12)


def _check_law(times: Times, drawn: torch.Tensor, schedule: Schedule, where: str) -> None:
    assert drawn.dtype == torch.float64, f"{where}: samples in {drawn.dtype}"
    low, high = time_limits(schedule)
    assert bool(((drawn >= low) & (drawn <= high)).all()), f"{where}: |λ| exceeds 20"
    levels = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    limits = times.quantile(levels, schedule).clamp(low, high)
    below = (drawn[:, None] <= limits).double().mean(0)
    gap = float((below - levels)[(limits > low) & (limits < high)].abs().max())
    # Kolmogorov-Smirnov at p = 1e-6: sup |F_n - F| > 2.69/√n
    assert gap < 2.69 / len(drawn) ** 0.5, f"{where}: the samples' law is off by {gap:.3g}"


def _check_entries(times: Times, schedule: Schedule, where: str) -> None:
    count = 2000
    drawn = times.sample(Noise.of(0, count), schedule, 3)
    assert drawn.shape == (count, 3), f"{where}: times of 3 entries, shape {tuple(drawn.shape)}"
    for entry in drawn.unbind(1):
        _check_law(times, entry, schedule, f"{where}, for an entry")
    ranks = drawn.argsort(0).argsort(0).double()
    off = float((torch.corrcoef(ranks.mT) - torch.eye(3)).abs().max())
    assert off < 5 / count**0.5, f"{where}: the times of entries depend on one another, {off:.3g}"
    again = times.sample(Noise.of(0, [7, 3]), schedule, 5)[:, :3]
    close(again, drawn[[7, 3]], f"{where}: an entry's time depends on its neighbours", 1e-12)
    each = times.density(drawn[:6], schedule)
    one = torch.stack([times.density(t, schedule) for t in drawn[:6].unbind(1)], 1)
    close(each, one, f"{where}: the density at times of shape (B, T)", 1e-12)


class Silent(Backbone):
    """A backbone whose output is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.spec, self.conditions = SPECS["shape"], ConditionSpec()

    def forward(
        self,
        x: Latent,
        c_noise: torch.Tensor,
        cond: Condition | None = None,
        guest: Guest | None = None,
    ) -> Latent:
        return x.zeros()


@torch.no_grad()
def check_weighting(weighting: Weighting) -> None:
    """Finite and not negative at every noise level, ends included; the shape is that of t.

    The loss at times for each entry, (B, T), is that of each entry, and errors of another shape
    than the times are refused, also where B = T. The weight of ‖x̂0 - x0‖², if the weighting has
    one, is the same for every prediction.
    """
    name = type(weighting).__name__
    t = torch.tensor([0.0, 1e-6, 1e-3, 0.1, 0.5, 0.9, 0.999, 1.0], dtype=torch.float64)
    laws: list[Times] = [Uniform(), LogitNormal(), LogNormal()]
    predictions: list[Prediction] = [
        DataPrediction(),
        VPrediction(),
        EDMPrediction(0.5),
        NoisePrediction(),
    ]
    for kind, prediction, times in itertools.product(SCHEDULES, predictions, laws):
        schedule = kind()
        if isinstance(prediction, NoisePrediction) and schedule.terminal_snr_is_zero:
            continue
        denoiser = Preconditioned(Silent(), schedule, prediction)
        ends = times.quantile(torch.tensor([1e-7, 1 - 1e-7]).double(), schedule)
        inside = t.clamp(*ends.tolist()).clamp(*time_limits(schedule))
        weight = weighting(denoiser, inside, times)
        where = f"{name} with {type(prediction).__name__} on {kind.__name__}"
        assert weight.shape == inside.shape, f"{where}: shape {tuple(weight.shape)}"
        assert bool(torch.isfinite(weight).all()), f"{where}: weights {weight.tolist()}"
        assert bool((weight >= 0).all()), f"{where}: negative weights {weight.tolist()}"
    _check_same_loss(weighting, name)
    _check_loss_of_entries(weighting, name)
    if isinstance(weighting, Bound):
        share = weighting.share(torch.linspace(-20, 20, 4001, dtype=torch.float64))
        assert bool((share.diff() <= 0).all()), f"{name}: no bound, as its share rises with λ"


def _check_loss_of_entries(weighting: Weighting, name: str) -> None:
    denoiser, times = Preconditioned(Silent(), VariancePreserving(), VPrediction()), Uniform()
    t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64).view(3, 3)
    error = torch.linspace(0.2, 3.0, 9, dtype=torch.float64).view(3, 3)
    joint = weighting.loss(denoiser, t, times, error)
    pairs = zip(t.unbind(1), error.unbind(1), strict=True)
    each = torch.stack([weighting.loss(denoiser, own, times, e) for own, e in pairs], 1)
    close(joint, each, f"{name}: the loss at times of shape (B, T) is not that of each entry", 1e-9)
    try:
        weighting.loss(denoiser, t, times, error[0])
    except ValueError:
        return
    raise AssertionError(f"{name}: times (3, 3) and errors (3,) make a loss: refuse them")


def _check_same_loss(weighting: Weighting, name: str) -> None:
    log_snr = torch.zeros(1, dtype=torch.float64)
    try:
        weighting.data(log_snr, torch.ones_like(log_snr))
    except TypeError:
        return  # defined by the prediction
    t = torch.tensor([0.05, 0.3, 0.8], dtype=torch.float64)
    for schedule in (VariancePreserving(), RectifiedFlow()):
        found = []
        for prediction in (DataPrediction(), VPrediction(), EDMPrediction(0.5)):
            denoiser = Preconditioned(Silent(), schedule, prediction)
            _, c_out = prediction.inverse(schedule, t)
            found.append(weighting(denoiser, t, Uniform()) / c_out**2)
        for other in found[1:]:
            close(other, found[0], f"{name}: the weight of x0 differs between predictions", 1e-9)
