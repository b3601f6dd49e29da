"""Predictions: the 2×2 system, its known special cases, and where it has no meaning."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

import anylatent as al
from tests.core.toys import PointNet, distance

SCHEDULES = ("vp", "cosine", "edm", "flow", "table", "sub_vp", "sqrt", "geometric", "sigmoid")
inner = st.floats(1e-3, 0.999)


def coefficients(prediction, schedule, t):
    return [float(c) for c in prediction.inverse(schedule, t)]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(SCHEDULES),
    st.sampled_from(["data", "noise", "v", "score", "velocity", "edm", "mixed"]),
    inner,
    st.floats(-5, 5),
    st.floats(-5, 5),
)
def test_x0_comes_back_from_the_target(name, kind, t, x0, noise):
    schedule, prediction = al.get("schedule", name)(), al.get("prediction", kind)()
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    a, b = (float(c) for c in prediction.target(schedule, t))
    c_skip, c_out = coefficients(prediction, schedule, t)
    x = alpha * x0 + sigma * noise
    found = c_skip * x + c_out * (a * x0 + b * noise)
    assert found == pytest.approx(x0, abs=1e-11 * (1 + abs(c_skip * x)))


@pytest.mark.parametrize("t", (0.1, 0.5, 0.9))
def test_special_cases_by_hand(t):
    vp, flow = al.get("schedule", "vp")(), al.get("schedule", "flow")()
    alpha, sigma = float(vp.alpha(t)), float(vp.sigma(t))
    get = lambda kind, **settings: al.get("prediction", kind)(**settings)  # noqa: E731
    approx = lambda *values: pytest.approx(list(values), rel=1e-12, abs=1e-14)  # noqa: E731
    assert coefficients(get("data"), vp, t) == approx(0, 1)
    assert coefficients(get("noise"), vp, t) == approx(1 / alpha, -sigma / alpha)
    assert coefficients(get("v"), vp, t) == approx(alpha, -sigma)  # alpha² + sigma² = 1
    assert coefficients(get("score"), vp, t) == approx(1 / alpha, sigma**2 / alpha)
    assert coefficients(get("velocity"), flow, t) == approx(1, -t)  # x0 = x_t - t·(noise - x0)


@pytest.mark.parametrize("std", (0.5, 1.0))
def test_edm_is_karras_s_preconditioning(std):
    schedule = al.get("schedule", "edm")()
    prediction = al.get("prediction", "edm")(data_std=std)
    for t in (0.2, 0.5, 0.8):
        sigma = float(schedule.sigma(t))
        root = (sigma**2 + std**2) ** 0.5
        wanted = [std**2 / root**2, sigma * std / root]
        assert coefficients(prediction, schedule, t) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_edm_s_target_has_unit_variance(name):
    schedule = al.get("schedule", name)()
    prediction = al.get("prediction", "edm")(data_std=0.3)
    t = torch.linspace(0.01, 1, 30, dtype=torch.float64)
    a, b = prediction.target(schedule, t)
    assert torch.allclose(a**2 * 0.09 + b**2, torch.ones_like(t), atol=1e-12)


ZERO = {"flow", "cosine", "shifted", "sqrt", "sigmoid", "zero_terminal_snr"}
REFUSED = {(name, kind) for name in ZERO for kind in ("noise", "score")}
REFUSED |= {("sqrt", "velocity"), ("sigmoid", "velocity")}  # infinite at t = 1
REFUSED |= {("polynomial", "velocity")}  # zero there


@pytest.mark.parametrize("kind", al.names("prediction"))
@pytest.mark.parametrize("name", al.names("schedule"))
def test_every_combination_is_exact_at_both_ends_or_refused_at_construction(name, kind):
    schedule, prediction = al.get("schedule", name)(), al.get("prediction", kind)()
    network = PointNet(al.testing.SPECS["molecule"])
    if (name, kind) in REFUSED:
        with pytest.raises(ValueError, match="no meaning at t = 1.*Use prediction=v") as caught:
            al.Preconditioned(network, schedule, prediction)
        suggested = str(caught.value).split("Use prediction=")[1].split(", or")[0].split(", ")
        for other in suggested:
            al.Preconditioned(network, schedule, al.get("prediction", other)())
        return
    al.Preconditioned(network, schedule, prediction)
    with torch.no_grad():
        assert coefficients(prediction, schedule, 0.0)[1] == 0
        (c_skip, c_out), (a, b) = (
            [float(c) for c in f(schedule, 1.0)] for f in (prediction.inverse, prediction.target)
        )
        alpha, sigma = float(schedule.alpha(1.0)), float(schedule.sigma(1.0))
    for x0, noise in ((0.7, -1.3), (-2.0, 0.4)):
        found = c_skip * (alpha * x0 + sigma * noise) + c_out * (a * x0 + b * noise)
        assert found == pytest.approx(x0, abs=1e-9 * (1 + abs(c_skip)))


def test_suggested_schedules_take_every_prediction():
    for name in ("vp", "edm", "table"):
        for kind in al.names("prediction"):
            al.get("prediction", kind)().check(al.get("schedule", name)())


def mixed(spec, name="vp", **settings):
    torch.manual_seed(0)
    kind = al.get("prediction", "mixed")(**settings)
    return al.Preconditioned(PointNet(spec).double(), al.get("schedule", name)(), kind)


@pytest.mark.parametrize("name", ("vp", "flow", "edm"))
@pytest.mark.parametrize("std", (1.0, 0.4))
def test_the_mixed_score_of_a_zero_network_is_the_normal_prior_s_exactly(name, std):
    spec = al.testing.SPECS["molecule"]
    denoiser = mixed(spec, name, data_std=std)
    torch.nn.init.zeros_(denoiser.backbone.last.weight)
    torch.nn.init.zeros_(denoiser.backbone.last.bias)
    for logits in denoiser.prediction.logits.values():
        torch.nn.init.normal_(logits)  # whatever the shares
    x = al.Noise.of(0, 4).like(al.testing.example(spec))
    exact = al.testing.GaussianDenoiser(denoiser.schedule, 0.0, std)
    for t in (0.0, 0.2, 0.7, 1.0):
        assert distance(denoiser(x, t), exact(x, t)) < 1e-12


def score(denoiser, x, t):
    alpha, sigma = (float(c) for c in denoiser.schedule.coefficients(torch.tensor(t).double()))
    return (alpha * denoiser(x, t) - x) / sigma**2


def test_scores_are_mixed_by_the_shares():
    """(1 - m)·Normal's + m·network's, the network's being that of the plain edm prediction."""
    spec = al.testing.SPECS["molecule"]
    denoiser = mixed(spec)
    plain = al.Preconditioned(denoiser.backbone, denoiser.schedule, al.get("prediction", "edm")())
    x = al.Noise.of(0, 4).like(al.testing.example(spec))
    normal = al.testing.GaussianDenoiser(denoiser.schedule, 0.0, 1.0)
    denoiser.prediction.logits["x"].data.fill_(3.0 + 0.5)
    shares = {"x": torch.sigmoid(torch.tensor(0.5)).item(), "h": 1 / (1 + math.exp(3))}
    got, of_net, of_normal = (score(d, x, 0.4) for d in (denoiser, plain, normal))
    for field, m in shares.items():
        wanted = (1 - m) * of_normal[field] + m * of_net[field]
        assert torch.allclose(got[field], wanted, atol=1e-6)


def test_mixed_shares_are_one_per_channel_and_learn():
    spec = al.LatentSpec({"z": al.Field((4, 8, 8), channels=0), "x": al.Field((None, 3), True)})
    kind = al.get("prediction", "mixed")()
    kind.attach(spec)
    assert {n: tuple(p.shape) for n, p in kind.logits.items()} == {"z": (4, 1, 1), "x": ()}
    denoiser = mixed(al.testing.SPECS["molecule"])
    x = al.Noise.of(0, 4).like(al.testing.example(denoiser.backbone.spec))
    denoiser(x, 0.5).norm().sum().backward()
    for name in ("x", "h"):
        gradient = dict(denoiser.named_parameters())[f"prediction.logits.{name}"].grad
        assert bool(gradient != 0)


def test_a_width_must_be_positive():
    with pytest.raises(ValueError, match="data_std"):
        al.get("prediction", "edm")(data_std=0.0)
