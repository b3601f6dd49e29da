"""Predictions: the 2×2 system, its known special cases, and where it has no meaning."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

import anylatent as al

SCHEDULES = ("vp", "cosine", "edm", "flow", "table")
inner = st.floats(1e-3, 0.999)


def coefficients(prediction, schedule, t):
    return [float(c) for c in prediction.inverse(schedule, t)]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(SCHEDULES),
    st.sampled_from(["data", "noise", "v", "score", "velocity", "edm"]),
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


@pytest.mark.parametrize("kind", ("noise", "score"))
@pytest.mark.parametrize("name", ("flow", "cosine", "shifted"))
def test_a_combination_without_meaning_is_refused_at_construction(name, kind):
    backbone = al.get("backbone", "unet")(channels=32)
    with pytest.raises(ValueError, match="no meaning at t = 1.*Use prediction=v"):
        al.Preconditioned(backbone, al.get("schedule", name)(), al.get("prediction", kind)())


@pytest.mark.parametrize("name", ("flow", "cosine", "shifted", "vp", "edm", "table"))
@pytest.mark.parametrize("kind", ("data", "v", "velocity", "edm"))
def test_the_others_are_finite_at_both_ends(name, kind):
    schedule, prediction = al.get("schedule", name)(), al.get("prediction", kind)()
    prediction.check(schedule)
    for t in (0.0, 1.0):
        assert all(abs(c) < 1e6 for c in coefficients(prediction, schedule, t))
    assert coefficients(prediction, schedule, 0.0)[1] == 0


def test_a_width_must_be_positive():
    with pytest.raises(ValueError, match="data_std"):
        al.get("prediction", "edm")(data_std=0.0)
