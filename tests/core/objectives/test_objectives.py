"""Denoising: the loss of the exact denoiser is known, and padding has no part in it."""

import math

import pytest
import torch

import anylatent as al
from tests.core.toys import ExactBackbone, PointNet, alone


def exact_objective(schedule, kind, spec, std, weighting):
    """A `Denoising` on data N(0, std²) and the denoiser that is exact for it."""
    prediction = al.get("prediction", kind)()
    exact = al.testing.GaussianDenoiser(schedule, 0.0, std)
    backbone = ExactBackbone(exact, prediction, spec)
    denoiser = al.Preconditioned(backbone, schedule, prediction)
    plain = denoiser.predict

    def predict(x, t, cond=None):
        backbone.t = t
        return plain(x, t, cond)

    denoiser.predict = predict
    objective = al.get("objective", "denoising")(al.get("times", "uniform")(), weighting)
    return denoiser, objective


@pytest.mark.parametrize("key", ("image", "molecule"))
@pytest.mark.parametrize(("name", "kind"), (("vp", "v"), ("vp", "noise"), ("flow", "velocity")))
def test_the_exact_denoiser_s_loss_is_the_posterior_s_variance(key, name, kind):
    """E‖x̂0 - x0‖²/dim = s²σ²/(α²s² + σ²); with weight w it is E_t w·that. 3 standard errors."""
    schedule, std, spec = al.get("schedule", name)(), 0.5, al.testing.SPECS[key]
    denoiser, objective = exact_objective(
        schedule, kind, spec, std, al.get("weighting", "min_snr")(5.0)
    )
    count = 2000
    blank = al.testing.example(spec, count)
    x0 = std * al.Noise.of(1, count).like(blank)
    losses = objective(denoiser, x0, None, al.Noise.of(2, count))
    assert losses.shape == (count,)
    t = (torch.arange(100000, dtype=torch.float64) + 0.5) / 100000
    alpha, sigma = schedule.coefficients(t)
    snr = (alpha / sigma) ** 2
    variance = std**2 * sigma**2 / (alpha**2 * std**2 + sigma**2)
    wanted = float((snr.clamp(max=5) * variance).mean())
    assert abs(float(losses.mean()) - wanted) < 3 * float(losses.std()) / count**0.5


class EvenLevels(al.Times):
    """λ uniform between the schedule's lowest and 20."""

    def quantile(self, u, schedule):
        low = float(schedule.log_snr(1.0))
        return schedule.time(20 + (low - 20) * u)

    def density(self, t, schedule):
        return -schedule.log_snr_rate(t) / (20 - float(schedule.log_snr(1.0)))


def test_the_elbo_of_the_exact_denoiser_is_the_gaussian_s_likelihood():
    """∫ ½·SNR·mse dλ from data N(0, s²): ½·log((s²·SNR_max + 1)/(s²·SNR_min + 1)) nats."""
    schedule, std, spec = al.get("schedule", "vp")(), 0.5, al.testing.SPECS["image"]
    denoiser, objective = exact_objective(schedule, "v", spec, std, al.get("weighting", "elbo")())
    objective.times, count = EvenLevels(), 3000
    x0 = std * al.Noise.of(1, count).like(spec.blank(count, dtype=torch.float64))
    losses = objective(denoiser, x0, None, al.Noise.of(2, count))
    ends = (20.0, float(schedule.log_snr(1.0)))
    high, low = (math.log(std**2 * math.exp(log_snr) + 1) for log_snr in ends)
    error = 3 * float(losses.std()) / count**0.5
    assert abs(float(losses.mean()) - 0.5 * (high - low)) < error < 0.5


@pytest.mark.parametrize("key", ("text", "molecule"))
def test_the_loss_of_a_padded_batch_is_each_sample_s_own(key):
    torch.manual_seed(0)
    spec = al.testing.SPECS[key]
    denoiser = al.Preconditioned(
        PointNet(spec), al.get("schedule", "vp")(), al.get("prediction", "v")()
    )
    blank = al.testing.example(spec, dtype=torch.float32, padded=20)
    x0 = al.Noise.of(1, 4).like(blank)
    objective = al.get("objective", "denoising")()
    joint = objective(denoiser, x0, None, al.Noise.of(2, 4))
    own = [objective(denoiser, alone(x0, i), None, al.Noise.of(2, [i])) for i in range(4)]
    assert torch.allclose(joint, torch.cat(own), rtol=1e-5)


def test_flow_matching_is_denoising_with_the_velocity():
    """‖F - (noise - x0)‖² at x_t = (1 - t)·x0 + t·noise, by hand."""
    torch.manual_seed(0)
    spec = al.testing.SPECS["text"]
    schedule, net = al.get("schedule", "flow")(), PointNet(spec).double()
    denoiser = al.Preconditioned(net, schedule, al.get("prediction", "velocity")())
    objective = al.get("objective", "denoising")(al.get("times", "uniform")())
    x0 = al.Noise.of(1, 4).like(al.testing.example(spec))
    got = objective(denoiser, x0, None, al.Noise.of(2, 4))
    noise = al.Noise.of(2, 4)
    t = objective.times.sample(noise, schedule)
    z = noise.like(x0)
    x = (1 - t) * x0 + t * z
    c_in = ((1 - t) ** 2 + t**2).rsqrt()
    c_noise = -schedule.log_snr(t).clamp(-20, 20) / 4
    wanted = net(c_in * x, c_noise).project().mse(z - x0)
    assert torch.allclose(got, wanted, rtol=1e-10)


class Scale(al.Backbone):
    def __init__(self, spec):
        super().__init__()
        self.spec, self.conditions = spec, al.ConditionSpec()
        self.w = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x, c_noise, cond=None):
        return x.map(lambda z: self.w * z)


class Fixed(al.Times):
    def quantile(self, u, schedule):
        return torch.full_like(u, 0.4)

    def density(self, t, schedule):
        return torch.ones_like(t)


def test_training_a_linear_network_finds_the_exact_denoiser():
    """One parameter, one noise level: F = w·x with w = the regression coefficient."""
    spec, schedule, std = al.testing.SPECS["image"], al.get("schedule", "vp")(), 0.5

    net = Scale(spec)
    denoiser = al.Preconditioned(net, schedule, al.get("prediction", "data")(), std)
    objective = al.get("objective", "denoising")(Fixed())
    x0 = std * al.Noise.of(0, 64).like(spec.blank(64, dtype=torch.float64))
    optimiser = torch.optim.LBFGS([net.w], max_iter=20)

    def closure():
        optimiser.zero_grad()
        loss = objective(denoiser, x0, None, al.Noise.of(1, 64)).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    alpha, sigma = float(schedule.alpha(0.4)), float(schedule.sigma(0.4))
    variance = alpha**2 * std**2 + sigma**2
    assert float(net.w.detach()) == pytest.approx(alpha * std**2 / variance**0.5, abs=0.01)
