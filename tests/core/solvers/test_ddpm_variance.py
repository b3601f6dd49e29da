"""The variances of ancestral sampling against closed forms."""

import itertools
import math

import pytest
import torch

import anylatent as al
from anylatent.core.denoisers.learned_variance import LearnedVariance, doubled
from anylatent.core.testing.sampling import NUMBER, responses
from tests.core.toys import distance, gaussian, start

SPEC = al.LatentSpec({"z": al.Field((4,))})
WIDTHS = (0.1, 0.3, 0.5, 1.0, 2.0)


def pairs(schedule, times):
    for t, s in itertools.pairwise(times.tolist()):
        yield tuple(float(f(u)) for u in (t, s) for f in (schedule.alpha, schedule.sigma))


@pytest.mark.parametrize("steps", (10, 20, 100))
@pytest.mark.parametrize("width", WIDTHS)
def test_the_large_variance_is_that_of_the_chain(width, steps):
    """On a variance-preserving schedule: DDPM's own formulas, with β of x_t given x_s."""
    schedule = al.get("schedule", "vp")()
    times = al.get("grid", "log_snr")()(schedule, steps)
    variance = float(schedule.alpha(1.0)) ** 2 * width**2 + float(schedule.sigma(1.0)) ** 2
    for a_t, b_t, a_s, b_s in pairs(schedule, times):
        beta = 1 - (a_t / a_s) ** 2
        gain = a_t * width**2 / (a_t**2 * width**2 + b_t**2)
        on_x, on_x0 = (a_t / a_s) * b_s**2 / b_t**2, a_s * beta / b_t**2  # the posterior's mean
        variance = (on_x + on_x0 * gain) ** 2 * variance + (beta if b_s > 0 else 0)
    solver = al.get("solver", "ddpm")(variance="large")
    _, mean, std = responses(solver, schedule, steps, 0.7, width, steps + 1)[-1]
    assert mean == pytest.approx(0.7, abs=1e-10)
    assert std == pytest.approx(math.sqrt(variance), rel=1e-9)


class Known(al.Backbone):
    """F = 0, by which edm's prediction is exact for N(0, data_std²), and a v that is known."""

    def __init__(self, spec, between):
        super().__init__()
        self.spec, self.conditions, self.output = spec, al.ConditionSpec(), doubled(spec)
        self.between = between

    def forward(self, x, c_noise, cond=None):
        v = torch.full_like(x["z"], 2 * self.between - 1)
        return al.Latent({"z": torch.cat([torch.zeros_like(v), v], 1)}, x.masks, self.output)


@pytest.mark.parametrize("between", (0.0, 0.3, 1.0))
@pytest.mark.parametrize("steps", (10, 20, 100))
@pytest.mark.parametrize("width", WIDTHS)
@torch.no_grad()
def test_a_learned_variance_is_between_those_of_the_chain(width, steps, between, monkeypatch):
    """log variance = v·log β + (1 - v)·log β̃, by DDPM's own formulas."""
    schedule = al.get("schedule", "vp")()
    times = al.get("grid", "log_snr")()(schedule, steps)
    variance = float(schedule.alpha(1.0)) ** 2 * width**2 + float(schedule.sigma(1.0)) ** 2
    for a_t, b_t, a_s, b_s in pairs(schedule, times):
        beta = 1 - (a_t / a_s) ** 2
        gain = a_t * width**2 / (a_t**2 * width**2 + b_t**2)
        on_x, on_x0 = (a_t / a_s) * b_s**2 / b_t**2, a_s * beta / b_t**2  # the posterior's mean
        small = beta * b_s**2 / b_t**2
        fresh = beta**between * small ** (1 - between) if b_s > 0 else 0.0
        variance = (on_x + on_x0 * gain) ** 2 * variance + fresh

    def learned(schedule, mean, std):
        backbone, prediction = Known(NUMBER, between), al.get("prediction", "edm")(width)
        return LearnedVariance(backbone, schedule, prediction, width)

    monkeypatch.setattr(f"{responses.__module__}.GaussianDenoiser", learned)
    solver = al.get("solver", "ddpm")(variance="learned")
    _, mean, std = responses(solver, schedule, steps, 0.0, width, steps + 1)[-1]
    assert mean == pytest.approx(0.0, abs=1e-10)
    assert std == pytest.approx(math.sqrt(variance), rel=1e-9)


@pytest.mark.parametrize("name", ("vp", "cosine", "edm", "flow", "table", "shifted"))
def test_the_large_variance_is_exact_for_standard_normal_data(name):
    schedule = al.get("schedule", name)()
    for steps in (1, 2, 5, 20):
        solver = al.get("solver", "ddpm")(variance="large")
        *states, (t, _, last) = responses(solver, schedule, steps, 0.7, 1.0, 21)
        for s, _, std in states:
            wanted = math.hypot(float(schedule.alpha(s)), float(schedule.sigma(s)))
            assert std == pytest.approx(wanted, rel=1e-12)
        # no noise at t = 0: what x_t does not know of x0 is missing
        before = states[-1][0] if states else 1.0
        known = float(schedule.alpha(before)) / math.hypot(
            float(schedule.alpha(before)), float(schedule.sigma(before))
        )
        assert t == 0 and last == pytest.approx(known, rel=1e-9)


def test_the_small_variance_is_the_default():
    schedule = al.get("schedule", "vp")()
    ends = [
        responses(solver, schedule, 10, 0.0, 0.5, 11)[-1]
        for solver in (al.get("solver", "ddpm")(), al.get("solver", "ddim")(eta=1.0))
    ]
    large = responses(al.get("solver", "ddpm")(variance="large"), schedule, 10, 0.0, 0.5, 11)[-1]
    assert ends[0] == ends[1] and large[2] > 1.2 * ends[0][2]
    with pytest.raises(ValueError, match="variance must be small"):
        al.get("solver", "ddpm")(variance="medium")


@pytest.mark.parametrize("eta", (0.0, 0.4, 1.0))
def test_euler_ancestral_is_the_familiar_formula(eta):
    """In noise levels, with alpha = 1: Euler down to sigma_down, then noise up."""
    schedule, blank = al.get("schedule", "edm")(), SPEC.blank(3, dtype=torch.float64)
    exact, mean, _ = gaussian(schedule, blank)
    times = al.get("grid", "karras")()(schedule, 12)
    x, noise = start(schedule, blank, mean)
    found = al.solve(al.get("solver", "euler_ancestral")(eta=eta), exact, schedule, x, times, noise)
    x, noise = start(schedule, blank, mean)
    sigmas = schedule.sigma(times).tolist()
    for t, high, low in zip(times.tolist(), sigmas[:-1], sigmas[1:], strict=False):
        up = min(low, eta * math.sqrt(low**2 * (high**2 - low**2) / high**2))
        down = math.sqrt(low**2 - up**2)
        slope = (1 / high) * (x - exact(x, t))
        x = x + (down - high) * slope
        if eta:
            x = x + up * noise.like(x)
    assert distance(found, x) < 1e-10
