"""Log-likelihoods against closed forms, on every schedule and every kind of latent."""

import math

import pytest
import torch

import anylatent as al
from anylatent.core.denoisers.exact import constant
from anylatent.core.guidance import ClassifierFree
from anylatent.core.likelihood.flow import log_likelihood
from anylatent.core.testing.denoisers import ConditionalGaussian
from tests.core.densities import LEVEL, RHO, data, mixture, normal, pushed, typical
from tests.core.toys import distance

SCHEDULES = ("vp", "cosine", "edm", "flow", "table", "shifted")


def mostly_slow(names):
    """The first of them in the default suite, all in the slow one."""
    return [pytest.param(n, marks=pytest.mark.slow if i else []) for i, n in enumerate(names)]


KEYS = tuple(al.testing.SPECS)


# ---- closed forms -----------------------------------------------------------------------------
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_gaussian_has_its_closed_form(name, key):
    """Exact trace, and Hutchinson's, which is exact here too: the field is a multiple of 1."""
    schedule = al.get("schedule", name)()
    x0, mean = data(al.testing.example(al.testing.SPECS[key]))
    exact = al.testing.GaussianDenoiser(schedule, 0.5, 0.3)
    wanted = pushed(schedule, x0, mean, 0.3)
    for noise in (None, al.Noise.of(1, 4)):
        found = log_likelihood(exact, schedule, x0, noise=noise, tolerance=1e-7)
        assert float(((found.log_p - wanted) / wanted).abs().max()) < 1e-6
        assert float((found.log_p - found.log_prior - found.log_volume).abs().max()) == 0
        # x₁ is where the flow's closed form leads, and log p its density times the volume
        t = schedule.time(torch.tensor(LEVEL))
        x1 = exact.flow(schedule.alpha(t) * x0, t, 1.0)
        assert distance(found.x1, x1) < 1e-5 * max(1.0, float(x1.norm().max()))
        prior = normal(found.x1, x0.zeros(), float(schedule.sigma(1.0)) ** 2)
        assert torch.allclose(found.log_prior, prior, rtol=1e-12)
    if schedule.terminal_snr_is_zero:  # nothing is neglected: the data's own density
        scale = wanted.abs().maximum(x0.dim)  # a log-density may be near 0
        assert float(((found.log_p - normal(x0, mean, 0.09)) / scale).abs().max()) < 1e-5


def test_the_centred_molecule_has_three_dimensions_less():
    blank = al.testing.example(al.testing.SPECS["molecule"])
    assert blank.dim.tolist() == [(n - 1) * 3 + n * 5 for n in (5, 9, 2, 7)]
    schedule = al.get("schedule", "flow")()
    exact = al.testing.GaussianDenoiser(schedule, 0.0, 1.0)
    found = log_likelihood(exact, schedule, blank, noise=None).log_p  # at the mean
    wanted = [-0.5 * d * math.log(2 * math.pi * (1 + RHO**2)) for d in blank.dim.tolist()]
    assert found.tolist() == pytest.approx(wanted, rel=1e-7)


def test_bits_per_dim_of_a_standard_normal():
    schedule, blank = al.get("schedule", "cosine")(), al.testing.SPECS["image"].blank(64)
    x0, _ = data(blank, 0.0, 1.0)
    exact = al.testing.GaussianDenoiser(schedule, 0.0, 1.0)
    found = log_likelihood(exact, schedule, x0, noise=al.Noise.of(1, 64)).bits_per_dim
    # the entropy of N(0, 1) is ½·log₂(2πe) = 2.0471 bits; 3 standard errors of the mean of x²/2
    assert float(found.mean()) == pytest.approx(2.0471, abs=3 / math.sqrt(2 * 64 * 256 * 0.48))


@pytest.mark.parametrize("name", ("cosine", "flow"))
@pytest.mark.parametrize("std", (0.5, 0.05))
def test_a_mixture_has_its_log_density(name, std):
    schedule, spec = al.get("schedule", name)(), al.testing.SPECS["shape"]
    exact, means, log_density = mixture(schedule, spec, std)
    x0 = typical(means, std, 12)
    wanted = log_density(x0)
    assert float(wanted.max() - wanted.min()) > 4
    for tolerance, allowed in ((1e-4, 5e-3), (1e-8, 1e-6)):
        found = log_likelihood(exact, schedule, x0, noise=None, tolerance=tolerance)
        assert float(((found.log_p - wanted) / x0.dim).abs().max()) < allowed


@pytest.mark.parametrize("name", mostly_slow(SCHEDULES))
def test_the_volume_is_the_ratio_of_densities_on_every_schedule(name):
    """Whatever the prior: p_t of the mixture at both ends, in the padded and centred space."""
    schedule, spec = al.get("schedule", name)(), al.testing.SPECS["molecule"]
    exact, _, log_density = mixture(schedule, spec, lengths=[4])
    x0, _ = data(spec.blank(6, [4] * 6, dtype=torch.float64), 0.0, 0.8)
    found = log_likelihood(exact, schedule, x0, noise=None, tolerance=1e-8)
    alpha, sigma = float(schedule.alpha(1.0)), float(schedule.sigma(1.0))
    if alpha == 0:
        end = normal(found.x1, x0.zeros(), sigma**2)
    else:  # p₁(x) = alpha^(-dim)·p(x/alpha with noise ρ₁)
        end = log_density(found.x1 / alpha, sigma / alpha) - x0.dim.double() * math.log(alpha)
    gap = end + found.log_volume - log_density(x0)
    assert float((gap / x0.dim).abs().max()) < 1e-6


def test_the_level_of_the_data_costs_rho_squared():
    schedule, blank = al.get("schedule", "cosine")(), al.testing.SPECS["shape"].blank(4)
    x0, mean = data(blank.to(torch.float64))
    exact = al.testing.GaussianDenoiser(schedule, 0.5, 0.3)
    gaps = []
    for level in (8.0, 11.0, 14.0):
        found = log_likelihood(
            exact, schedule, x0, noise=None, tolerance=1e-10, log_snr=level
        ).log_p
        assert torch.allclose(found, pushed(schedule, x0, mean, 0.3, level), rtol=1e-8)
        gaps.append((found - normal(x0, mean, 0.09)).abs().max())
    assert float(gaps[0] / gaps[1]) == pytest.approx(math.exp(3), rel=0.05)
    assert float(gaps[1] / gaps[2]) == pytest.approx(math.exp(3), rel=0.05)


def test_a_guided_gaussian_is_a_gaussian_elsewhere():
    """x0 = x0(∅) + w·(x0(c) - x0(∅)) is linear in the mean: the guided law is N(w·c, s²)."""
    schedule, spec = al.get("schedule", "flow")(), al.testing.SPECS["text"]
    blank = al.testing.example(spec)
    places = torch.tensor([1.0, -0.5, 0.2, 2.0], dtype=torch.float64)
    cond = al.Condition({"mean": places})
    guided = ClassifierFree(ConditionalGaussian(schedule), scale=1.7)
    mean = (1.7 * places) * constant(blank, 1.0)
    x0, _ = data(blank, mean)
    found = log_likelihood(guided.bind(cond), schedule, x0, noise=None, tolerance=1e-7).log_p
    gap = found - pushed(schedule, x0, mean, 0.3)
    assert float((gap / x0.dim).abs().max()) < 1e-6


# ---- the integrator ---------------------------------------------------------------------------
@pytest.mark.parametrize("name", ("vp", "cosine", "edm", "flow"))
def test_fixed_steps_converge_with_order_five(name):
    schedule, spec = al.get("schedule", name)(), al.testing.SPECS["molecule"]
    x0, mean = data(al.testing.example(spec), std=0.6)
    exact = al.testing.GaussianDenoiser(schedule, 0.5, 0.6)
    wanted = pushed(schedule, x0, mean, 0.6)
    t = schedule.time(torch.tensor(LEVEL))
    x1 = exact.flow(schedule.alpha(t) * x0, t, 1.0)
    errors = []
    for steps in (12, 24):
        found = log_likelihood(exact, schedule, x0, noise=None, steps=steps)
        assert found.evaluations.tolist() == [1 + 6 * steps] * 4
        errors.append(((found.log_p - wanted).norm(), (found.x1 - x1).norm().norm()))
    slopes = [math.log2(float(coarse / fine)) for coarse, fine in zip(*errors, strict=True)]
    assert min(slopes) > 4.7, (slopes, errors)


def test_the_error_follows_the_tolerance():
    schedule, spec = al.get("schedule", "cosine")(), al.LatentSpec({"z": al.Field((6,))})
    exact, means, log_density = mixture(schedule, spec, 0.1)
    x0 = typical(means, 0.1, 32)
    before = 0
    for tolerance in (1e-3, 1e-5, 1e-7, 1e-9):
        found = log_likelihood(exact, schedule, x0, noise=None, tolerance=tolerance)
        error = float(((found.log_p - log_density(x0)) / x0.dim).abs().mean())
        assert error < 10 * tolerance, (tolerance, error)
        spent = float(found.evaluations.double().mean())
        assert before < spent < 1000
        before = spent
    assert len(set(found.evaluations.tolist())) > 1  # as many as each sample needs


@pytest.mark.parametrize("name", mostly_slow(("vp", "edm", "table")))
def test_a_solver_leads_from_x1_back_to_x0(name):
    schedule, spec = al.get("schedule", name)(), al.testing.SPECS["molecule"]
    exact, means, _ = mixture(schedule, spec, lengths=[4])
    x0 = typical(means, 0.3, 6, lengths=[4] * 6)
    x1 = log_likelihood(exact, schedule, x0, noise=None, tolerance=1e-9).x1
    gaps = []
    for steps in (300, 600):
        times = al.get("grid", "log_snr")()(schedule, steps)
        times[-1] = schedule.time(LEVEL)
        back = al.solve(al.get("solver", "heun")(), exact, schedule, x1, times)
        gaps.append(distance(back / schedule.alpha(times[-1]), x0))
    assert gaps[1] < 1e-3 and gaps[1] < 0.3 * gaps[0], gaps


# ---- errors -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "change, message",
    [
        ({"probes": 0}, "probes=0"),
        ({"noise": None, "probes": 2}, "noise=None the trace is exact"),
        ({"steps": 0}, "steps=0"),
        ({"tolerance": 0.0}, "tolerance must be positive"),
        ({"tolerance": math.nan}, "tolerance must be positive"),
        ({"log_snr": math.inf}, "log_snr=inf"),
        ({"log_snr": -11.0}, "above -10.05, that of VariancePreserving"),
        ({"noise": al.Noise.of(0, 3)}, "noise for 3 samples, but a latent of 4"),
    ],
)
def test_bad_arguments_are_errors_that_say_what_is_allowed(change, message):
    schedule = al.get("schedule", "vp")()
    x0 = al.testing.example(al.testing.SPECS["text"])
    arguments = {"noise": al.Noise.of(0, 4), **change}
    with pytest.raises(ValueError, match=message):
        log_likelihood(al.testing.GaussianDenoiser(schedule, 0, 1), schedule, x0, **arguments)


def test_half_precision_and_a_denoiser_without_gradients_are_errors():
    schedule = al.get("schedule", "vp")()
    exact = al.testing.GaussianDenoiser(schedule, 0.0, 1.0)
    x0 = al.testing.example(al.testing.SPECS["text"])
    noise = al.Noise.of(0, 4)
    with pytest.raises(ValueError, match="float32 or float64, got torch.bfloat16"):
        log_likelihood(exact, schedule, x0.to(torch.bfloat16), noise=noise)
    with pytest.raises(ValueError, match="keeps no gradient"):
        log_likelihood(torch.no_grad()(exact.forward), schedule, x0, noise=noise)
    with torch.inference_mode(), pytest.raises(ValueError, match="keeps no gradient"):
        log_likelihood(exact, schedule, x0, noise=noise)


def test_a_tolerance_out_of_reach_is_an_error(monkeypatch):
    monkeypatch.setattr("anylatent.core.likelihood.flow.MOST_STEPS", 50)
    schedule = al.get("schedule", "vp")()
    exact = al.testing.GaussianDenoiser(schedule, 0.5, 0.3)
    x0, _ = data(al.testing.example(al.testing.SPECS["text"]))
    with pytest.raises(RuntimeError, match="1e-14 is out of reach in torch.float64"):
        log_likelihood(exact, schedule, x0, noise=None, tolerance=1e-14)
    with pytest.raises(RuntimeError, match="of 4 samples, or the denoiser or x0 is not finite"):
        x0["z"][0, 0, 0] = math.nan
        log_likelihood(exact, schedule, x0, noise=None)
