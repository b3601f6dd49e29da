"""The learned schedule: what trains its end, what its interior, and where it is refused."""

import math

import pytest
import torch

import anylatent as al
from anylatent.core.testing.training import Silent
from tests.core.toys import PointNet

STD = 0.5


def bent(**settings):
    """A schedule whose network is far from an even rise."""
    schedule = al.get("schedule", "learned")(**settings)
    generator = torch.Generator().manual_seed(0)
    for parameter in (schedule.gain, schedule.slope, schedule.place):
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.7
    schedule.gain.data += 2
    schedule.end.data.fill_(0.4)
    return schedule


def objective(weighting="elbo", times="uniform"):
    part = al.get("objective", "denoising")
    return part(al.get("times", times)(), al.get("weighting", weighting)())


def data(spec, count, seed=1):
    return STD * al.Noise.of(seed, count).like(al.testing.example(spec, count))


def test_a_trained_one_keeps_the_contract_and_its_ends():
    schedule = bent()
    al.testing.check_schedule(schedule)
    al.testing.check_schedule(al.get("schedule", "shifted")(schedule, shift=2.0))
    with torch.no_grad():
        assert float(schedule.log_snr(1.0)) == pytest.approx(-9.6, abs=1e-6)
        even = al.get("schedule", "learned")().log_snr(torch.tensor([0.1, 0.5, 0.9]))
        assert float((bent().log_snr(torch.tensor([0.1, 0.5, 0.9])) - even).abs().max()) > 1


def test_it_is_linear_in_the_network_and_jumps_to_data_at_its_end():
    """λ = 20 - (20 - low)·w(t), and σ(0) = 0."""
    schedule = bent()
    t = torch.linspace(1e-9, 1, 20, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(schedule.log_snr(t), 20 - 29.6 * schedule._rise(t), atol=1e-5)
        assert float(schedule._rise(torch.tensor(1.0).double())) == 1
        assert float(schedule.sigma(0.0)) == 0 and float(schedule.alpha(0.0)) == 1
        ends = [float(schedule.time(level)) for level in (math.inf, 50.0, 20.0, -50.0)]
        assert ends == [0, 1e-12, 1e-12, 1]  # a finite λ has a time with noise


def gradients(loss, denoiser, schedule):
    own = {"end": schedule.end, "gain": schedule.gain, "slope": schedule.slope}
    own |= {"place": schedule.place, "net": denoiser.backbone.first.weight}
    return dict(zip(own, torch.autograd.grad(loss, list(own.values())), strict=True))


@pytest.mark.parametrize(("kind", "times"), (("v", "uniform"), ("mixed", "importance_ll")))
def test_the_bound_trains_network_and_end_and_the_variance_the_interior(kind, times):
    """As autograd finds them apart: of mean(L + prior), and of mean(L²)."""
    torch.manual_seed(0)
    spec, schedule, count = al.testing.SPECS["molecule"], bent(), 16
    net = PointNet(spec).double()
    denoiser = al.Preconditioned(net, schedule, al.get("prediction", kind)())
    part, x0 = objective(times=times), data(spec, count)

    def losses():
        return part(denoiser, x0, None, al.Noise.of(2, count))

    got = gradients(losses().mean(), denoiser, schedule)
    plain = losses()
    schedule.emphasis = None
    bound = gradients(plain.mean(), denoiser, schedule)
    prior = 0.5 * (-9.6 + (schedule.end - 0.4)).exp() * x0.dot(x0) / x0.dim
    diffusion = losses() - prior
    schedule.emphasis = None
    square = gradients((diffusion**2).mean(), denoiser, schedule)
    for name in ("end", "net"):
        assert torch.allclose(got[name], bound[name], rtol=1e-6), name
    for name in ("gain", "slope", "place"):
        assert torch.allclose(got[name], square[name], rtol=1e-4), name
        assert not torch.allclose(got[name], bound[name], rtol=1e-2), name


def test_the_end_falls_as_the_bound_says():
    """d/dlow of ½∫SNR·mse dλ + ½·e^low·s², for the exact mse: ½·e^low·(s² - mse(low)).

    Without the prior's term it would be -.0164, and the end would rise.
    """
    schedule, count = al.get("schedule", "learned")(low=-2.0), 20000
    losses = objective(times="low_discrepancy")(
        exact(schedule), data(al.testing.SPECS["shape"], count), None, al.Noise.of(3, count)
    )
    (got,) = torch.autograd.grad(losses.mean(), [schedule.end])
    snr = math.exp(-2)
    wanted = 0.5 * snr * STD**2 * (1 - 1 / (1 + STD**2 * snr))
    assert float(got) == pytest.approx(wanted, abs=6e-3)  # three standard errors


@pytest.mark.parametrize("name", ("log_normal", "importance_ll", "adaptive"))
def test_times_were_drawn_from_the_law_as_it_was(name):
    """Their density is divided out as a number, though the schedule that sets it learns."""
    schedule, t = bent(), torch.tensor([0.3, 0.6], dtype=torch.float64)
    denoiser, weighting = exact(schedule), al.get("weighting", "elbo")()
    gradients = []
    for law in (al.get("times", name)(), al.get("times", "uniform")()):
        weight = weighting(denoiser, t, law) * law.density(t, schedule).detach()
        gradients.append(torch.autograd.grad(weight.sum(), [schedule.end, schedule.gain]))
    for got, wanted in zip(*gradients, strict=True):
        assert bool(wanted.any()) and torch.allclose(got, wanted, rtol=1e-5)


def exact(schedule):
    """A network of zeros is the exact denoiser of N(0, STD²) under this prediction."""
    return al.Preconditioned(Silent(), schedule, al.get("prediction", "edm")(STD), STD)


def figures(schedule, seed=5, count=4000):
    x0 = data(al.testing.SPECS["shape"], count)
    with torch.no_grad():
        loss = objective()(exact(schedule), x0, None, al.Noise.of(seed, count))
    return float(loss.mean()), float(loss.std())


def test_training_keeps_the_bound_and_lowers_its_variance():
    schedule = al.get("schedule", "learned")()
    ends = (20.0, -10.0)
    high, low = (math.log1p(STD**2 * math.exp(level)) for level in ends)
    wanted = 0.5 * (high - low) + 0.5 * math.exp(-10) * STD**2  # the diffusion's and the prior's
    before, spread = figures(schedule)
    assert abs(before - wanted) < 3 * spread / 4000**0.5
    optimiser = torch.optim.Adam([schedule.gain, schedule.slope, schedule.place], lr=0.05)
    part, denoiser = objective(), exact(schedule)
    for step in range(150):
        x0 = data(al.testing.SPECS["shape"], 64, seed=(1, step))
        optimiser.zero_grad()
        part(denoiser, x0, None, al.Noise.of((2, step), 64)).mean().backward()
        optimiser.step()
    after, less = figures(schedule)
    assert abs(after - wanted) < 3 * less / 4000**0.5
    assert less < 0.7 * spread, (spread, less)
    al.testing.check_schedule(schedule)


@pytest.mark.parametrize("name", ("simple", "min_snr", "learned", "uniform", "p2"))
def test_a_loss_that_depends_on_the_schedule_is_refused(name):
    denoiser = exact(al.get("schedule", "shifted")(al.get("schedule", "learned")()))
    with pytest.raises(ValueError, match="easiest noise levels.*weighting=elbo"):
        al.get("generator", "diffusion")(denoiser, objective(name))
    al.get("generator", "diffusion")(exact(al.get("schedule", "vp")()), objective(name))


@pytest.mark.parametrize("name", ("elbo", "sigmoid", "monotone_edm", "exponential"))
def test_its_parameters_are_the_model_s(name):
    learned = al.get("schedule", "learned")()
    shifted = al.get("schedule", "shifted")(learned)
    model = al.get("generator", "diffusion")(exact(shifted), objective(name))
    names = {key.rsplit(".", 1)[1] for key in model.state_dict()}
    assert {"end", "gain", "slope", "place"} <= names
    assert {id(p) for p in learned.parameters()} <= {id(p) for p in model.parameters()}
    x0 = data(al.testing.SPECS["shape"], 8)
    model.loss(x0, None, al.Noise.of(0, 8)).mean().backward()
    assert all(bool(p.grad.any()) and bool(p.grad.isfinite().all()) for p in learned.parameters())


def test_cross_entropy_is_refused():
    with pytest.raises(ValueError, match="TokenCrossEntropy.*another schedule"):
        al.get("objective", "score_interpolation")().check(al.get("schedule", "learned")())
