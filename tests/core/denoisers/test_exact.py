"""The exact denoisers themselves, against Bayes by quadrature and against each other."""

import math

import pytest
import torch

import anylatent as al
from tests.core.toys import distance, gaussian, like

SPEC = al.LatentSpec({"z": al.Field((1,))})


def posterior_mean(schedule, x, t, density):
    """E[x0 | x_t = x] by the trapezoid rule over x0."""
    x0 = torch.linspace(-8, 8, 20001, dtype=torch.float64)
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    weight = density(x0) * torch.exp(-0.5 * ((x - alpha * x0) / sigma) ** 2)
    return float((weight * x0).sum() / weight.sum())


def normal(x, mean, std):
    return torch.exp(-0.5 * ((x - mean) / std) ** 2) / std


@pytest.mark.parametrize("name", ("vp", "edm", "flow"))
@pytest.mark.parametrize("t", (0.2, 0.6))
def test_gaussian_denoiser_is_bayes(name, t):
    schedule = al.get("schedule", name)()
    exact = al.testing.GaussianDenoiser(schedule, 0.7, 0.4)
    x = SPEC.wrap({"z": torch.tensor([[1.3]], dtype=torch.float64)})
    wanted = posterior_mean(schedule, 1.3, t, lambda x0: normal(x0, 0.7, 0.4))
    assert float(exact(x, t)["z"]) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("t", (0.2, 0.5, 0.8))
def test_mixture_denoiser_is_bayes(t):
    schedule = al.get("schedule", "vp")()
    means = [like(SPEC.blank(1, dtype=torch.float64), m) for m in (-1.0, 1.5)]
    exact = al.testing.MixtureDenoiser(schedule, means, 0.3, [1.0, 3.0])
    x = SPEC.wrap({"z": torch.tensor([[0.2]], dtype=torch.float64)})

    def density(x0):
        return 0.25 * normal(x0, -1.0, 0.3) + 0.75 * normal(x0, 1.5, 0.3)

    assert float(exact(x, t)["z"]) == pytest.approx(posterior_mean(schedule, 0.2, t, density), 1e-5)


@pytest.mark.parametrize("key", al.testing.SPECS)
def test_a_mixture_of_equal_components_is_the_gaussian(key):
    schedule = al.get("schedule", "flow")()
    blank = al.testing.example(al.testing.SPECS[key])
    mean = like(blank, 0.4)
    x = al.Noise.of(0, 4).like(blank)
    mixture = al.testing.MixtureDenoiser(schedule, [mean, mean], 0.3)
    plain = al.testing.GaussianDenoiser(schedule, 0.4, 0.3)
    for t in (0.1, 0.9, torch.tensor([0.1, 0.4, 0.6, 0.9]).double()):
        assert distance(mixture(x, t), plain(x, t)) < 1e-12


def test_mode_weights_of_samples():
    """The share of samples near each mode, to 3 standard errors."""
    schedule, count = al.get("schedule", "vp")(), 3000
    means = [like(SPEC.blank(1, dtype=torch.float64), m) for m in (-1.0, 1.0)]
    exact = al.testing.MixtureDenoiser(schedule, means, 0.2, [0.3, 0.7])
    times = al.get("grid", "log_snr")()(schedule, 60)
    noise = al.Noise.of(0, count)
    x = schedule.sigma(1.0) * noise.like(SPEC.blank(count, dtype=torch.float64))
    z = al.solve(al.get("solver", "dpmpp_2m")(), exact, schedule, x, times)["z"]
    share = float((z > 0).double().mean())
    assert abs(share - 0.7) < 3 * (0.21 / count) ** 0.5 + 0.002
    assert float(z[z > 0].std()) == pytest.approx(0.2, rel=0.08)


def test_the_score_is_tweedie_s():
    """s(x) = (alpha·x0 - x)/sigma², and the gradient of the log-density."""
    schedule = al.get("schedule", "vp")()
    blank = al.testing.example(al.testing.SPECS["text"])
    exact, _, _ = gaussian(schedule, blank)
    x = al.Noise.of(0, 4).like(blank)
    alpha, sigma = schedule.alpha(0.4), schedule.sigma(0.4)
    tweedie = (alpha * exact(x, 0.4) - x) / sigma**2
    assert distance(exact.score(x, 0.4), tweedie) < 1e-12


def test_the_flow_is_a_flow():
    """It composes, inverts, and its rate is that of the probability-flow ODE."""
    schedule = al.get("schedule", "vp")()
    blank = al.testing.SPECS["shape"].blank(2, dtype=torch.float64)
    exact, _, _ = gaussian(schedule, blank)
    x = al.Noise.of(0, 2).like(blank)
    there = exact.flow(x, 0.9, 0.5)
    assert distance(exact.flow(there, 0.5, 0.2), exact.flow(x, 0.9, 0.2)) < 1e-12
    assert distance(exact.flow(there, 0.5, 0.9), x) < 1e-12
    h, t = 1e-5, 0.5
    rate = (exact.flow(x, t, t + h) - exact.flow(x, t, t - h)) / (2 * h)
    alpha_rate, sigma_rate = schedule.rates(t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x0 = exact(x, t)
    wanted = alpha_rate * x0 + (sigma_rate / sigma) * (x - alpha * x0)
    assert distance(rate, wanted) < 1e-7


def test_the_flow_to_data_has_the_data_s_width():
    schedule = al.get("schedule", "edm")()
    exact = al.testing.GaussianDenoiser(schedule, 0.0, 0.25)
    x = SPEC.wrap({"z": torch.tensor([[1.0]], dtype=torch.float64)})
    ratio = 0.25 / math.sqrt(0.25**2 + 80**2)
    assert float(exact.flow(x, 1.0, 0.0)["z"]) == pytest.approx(ratio, rel=1e-12)


def test_weights_must_fit():
    with pytest.raises(ValueError, match="weight"):
        al.testing.MixtureDenoiser(al.get("schedule", "vp")(), [SPEC.blank(1)], 0.1, [1.0, 2.0])
