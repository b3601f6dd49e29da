"""Importance sampling: LSGM's three laws for Normal data, and the one that follows the loss."""

import math

import pytest
import torch

import anylatent as al
from anylatent.core.testing.training import Silent

PAIRS = {
    "importance_ll": al.get("weighting", "elbo")(),
    "importance_re": al.get("weighting", "sigmoid")(bias=0.0),
    "importance_un": al.get("weighting", "uniform")(),
}
SCHEDULES = ("vp", "flow", "edm", "cosine", "sub_vp", "geometric", "learned", "polynomial")


def exact(name, std=1.0):
    """A network of zeros is the exact denoiser of N(0, std²), and errs by 1 in its own space."""
    schedule = al.get("schedule", name)()
    if schedule.learned is not None:
        schedule.requires_grad_(False)
    return al.Preconditioned(Silent(), schedule, al.get("prediction", "edm")(std), std)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("law", PAIRS)
def test_the_mean_loss_is_the_same_at_every_time(law, name):
    """For N(0, 1) that is what makes a law the one of least variance."""
    denoiser, times = exact(name), al.get("times", law)()
    u = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    t = times.quantile(u, denoiser.schedule)
    loss = PAIRS[law](denoiser, t, times)  # times an error of 1
    assert torch.allclose(
        loss, loss.mean().expand_as(loss), rtol=2e-2 if law[-2:] == "un" else 1e-6
    )
    plain = PAIRS[law](denoiser, t, al.get("times", "uniform")())
    assert float(plain.std() / plain.mean()) > 0.1


def by_hand(law, schedule):
    """½∫ w(λ)·sigmoid(λ)·|dλ| or ½∫ sigmoid(λ)·dt."""
    low = max(float(schedule.log_snr(1.0)), -20.0)
    if law == "importance_ll":
        return 0.5 * (math.log1p(math.exp(20)) - math.log1p(math.exp(low)))
    if law == "importance_re":
        return 0.5 * (1 / (1 + math.exp(low)) - 1 / (1 + math.exp(20)))
    t = (torch.arange(100000, dtype=torch.float64) + 0.5) / 100000
    return 0.5 * float(torch.sigmoid(schedule.log_snr(t)).mean())


@pytest.mark.parametrize("name", ("vp", "flow"))
@pytest.mark.parametrize("law", PAIRS)
def test_the_estimator_has_the_mean_of_uniform_times_and_a_lower_variance(law, name):
    denoiser, count = exact(name), 4000
    x0 = al.Noise.of(1, count).like(denoiser.backbone.spec.blank(count, dtype=torch.float64))
    wanted, spread = by_hand(law, denoiser.schedule), {}
    for kind in (law, "uniform"):
        part = al.get("objective", "denoising")(al.get("times", kind)(), PAIRS[law])
        loss = part(denoiser, x0, None, al.Noise.of(2, count))
        spread[kind] = float(loss.std())
        # uniform times see λ > 9 too seldom for 4000 samples' own deviation to tell
        if not (kind == "uniform" and law == "importance_ll"):
            assert abs(float(loss.mean()) - wanted) < 3 * spread[kind] / count**0.5, kind
    assert spread[law] < 0.8 * spread["uniform"], spread


def test_the_unweighted_law_on_vp_is_the_closed_form_of_the_paper():
    """∫ exp(-∫β) dt over a quadratic is a difference of error functions."""
    schedule, law = al.get("schedule", "vp")(), al.get("times", "importance_un")()
    slope, shift = 19.9 / 2, 0.1  # ∫β = slope·t² + shift·t
    root, centre = math.sqrt(slope), shift / (2 * slope)
    part = lambda t: math.erf(root * (t + centre)) - math.erf(root * centre)  # noqa: E731
    u = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    t = law.quantile(u, schedule)
    found = torch.tensor([part(float(value)) / part(1) for value in t]).double()
    assert float((found - u).abs().max()) < 1e-5


def test_likelihood_sampling_of_the_geometric_schedule_is_uniform_but_for_its_start():
    schedule, law = al.get("schedule", "geometric")(), al.get("times", "importance_ll")()
    density = law.density(torch.linspace(0.6, 0.99, 40, dtype=torch.float64), schedule)
    assert float(density.std() / density.mean()) < 1e-3


def trained(denoiser, weighting, steps=300, count=64):
    times = al.get("times", "adaptive")()
    part = al.get("objective", "denoising")(times, weighting)
    blank = denoiser.backbone.spec.blank(count, dtype=torch.float64)
    for step in range(steps):
        x0 = denoiser.data_std * al.Noise.of((1, step), count).like(blank)
        part(denoiser, x0, None, al.Noise.of((2, step), count))
    return times


def test_the_adaptive_law_becomes_the_root_mean_square_of_the_loss():
    denoiser, weighting = exact("vp", 0.3), PAIRS["importance_ll"]
    times = trained(denoiser, weighting)
    log_snr = torch.linspace(-8, 18, 60, dtype=torch.float64)
    t = denoiser.schedule.time(log_snr)
    density = times.density(t, denoiser.schedule) / -denoiser.schedule.log_snr_rate(t)  # of λ
    ideal = 0.09 * log_snr.exp() / (0.09 * log_snr.exp() + 1)  # of the bound, for N(0, .3²)
    span = 20 - float(denoiser.schedule.log_snr(1.0))
    fine = torch.linspace(20 - span, 20, 1000, dtype=torch.float64)
    ideal = ideal / (span * torch.sigmoid(fine + math.log(0.09)).mean())
    wanted = 0.95 * ideal + 0.05 / span
    assert float((density - wanted).abs().max()) < 0.15 * float(ideal.max())


def test_the_adaptive_law_keeps_the_mean_and_lowers_the_variance():
    denoiser, weighting, count = exact("vp", 0.3), PAIRS["importance_ll"], 4000
    times = trained(denoiser, weighting)
    x0 = 0.3 * al.Noise.of(7, count).like(denoiser.backbone.spec.blank(count, dtype=torch.float64))
    ends = (20.0, float(denoiser.schedule.log_snr(1.0)))
    high, low = (math.log1p(0.09 * math.exp(level)) for level in ends)
    spread = []
    for law in (times, al.get("times", "adaptive")()):
        part = al.get("objective", "denoising")(law, weighting).eval()
        loss = part(denoiser, x0, None, al.Noise.of(8, count))
        spread.append(float(loss.std()))
        assert abs(float(loss.mean()) - 0.5 * (high - low)) < 3 * spread[-1] / count**0.5
    assert spread[0] < 0.6 * spread[1]


def test_the_adaptive_law_waits_until_it_has_seen_all_levels():
    times, schedule = al.get("times", "adaptive")(trials=10), al.get("schedule", "vp")()
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    before = times.density(t, schedule)
    for _ in range(20):
        times.observe(t[25:], t[25:], schedule)  # the noisier half alone
    assert torch.equal(times.density(t, schedule), before)
    fresh = al.get("times", "adaptive")()
    fresh.load_state_dict(times.state_dict())
    assert torch.equal(fresh.seen, times.seen) and float(fresh.seen.max()) == 20


@pytest.mark.parametrize("name", ("simple", "min_snr", "edm", "p2", "learned"))
def test_an_adaptive_law_that_would_change_the_loss_is_refused(name):
    with pytest.raises(ValueError, match="divided out.*weighting=elbo"):
        al.get("objective", "denoising")(al.get("times", "adaptive")(), al.get("weighting", name)())
