"""Grids: equal steps of what they say, from 1 to 0."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

import anylatent as al

SCHEDULES = ("vp", "cosine", "edm", "flow", "table")
names = st.sampled_from(SCHEDULES)


@settings(max_examples=60, deadline=None)
@given(names, st.sampled_from(["uniform", "log_snr", "karras", "soft"]), st.integers(1, 400))
def test_times_fall_strictly_from_1_to_0(name, grid, steps):
    times = al.get("grid", grid)()(al.get("schedule", name)(), steps)
    assert times.shape == (steps + 1,) and times.dtype == torch.float64
    assert float(times[0]) == 1 and float(times[-1]) == 0 and bool((times.diff() < 0).all())


@pytest.mark.parametrize("name", SCHEDULES)
def test_log_snr_steps_are_equal_between_the_clips(name):
    schedule = al.get("schedule", name)()
    times = al.get("grid", "log_snr")()(schedule, 24)
    steps = schedule.log_snr(times)[1:-1].diff()
    start = max(float(schedule.log_snr(1.0)), -10.0)
    assert torch.allclose(steps, torch.full_like(steps, (14 - start) / 24), atol=1e-8)


@pytest.mark.parametrize("name", SCHEDULES)
def test_karras_steps_are_equal_in_a_root_of_sigma_over_alpha(name):
    schedule = al.get("schedule", name)()
    times = al.get("grid", "karras")(rho=5.0)(schedule, 12)
    root = torch.exp(-0.5 * schedule.log_snr(times[1:-1]) / 5)
    assert torch.allclose(root.diff(), root.diff()[:1].expand(10), atol=1e-9)
    assert float(root[-1] ** 5) == pytest.approx(0.002, rel=1e-8)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("steps", "doublings"), ((5, -1), (10, 0), (20, 1), (40, 2), (80, 2)))
def test_soft_steps_are_equal_in_the_log_snr_with_soft_ends(name, steps, doublings):
    """g falls to 0, which are data; both ends move with the steps, up to 40 of them."""
    schedule = al.get("schedule", name)()
    ends = {"low": -4.0, "high": 4.0, "low_drift": -0.5, "high_drift": 1.25}
    times = al.get("grid", "soft")(**ends, low_width=1.5, high_width=2.0)(schedule, steps)
    low, high = -4 - 0.5 * doublings, 4 + 1.25 * doublings

    def softplus(x, width):
        return torch.nn.functional.softplus(x, 1 / width, 1e9)

    g = softplus(high - low - softplus(schedule.log_snr(times) - low, 1.5), 2.0)[:-1]
    assert torch.allclose(g / g[0], 1 - torch.arange(steps).double() / steps, atol=1e-9)


def test_uniform_steps():
    times = al.get("grid", "uniform")()(al.get("schedule", "vp")(), 4)
    assert times.tolist() == [1, 0.75, 0.5, 0.25, 0]


def test_log_snr_is_worth_an_order_of_magnitude_over_uniform_times():
    """The reason for the default: Heun on N(0, .3²), 40 steps, relative error of the width."""
    from anylatent.core.solvers import solve

    schedule = al.get("schedule", "vp")()
    x = al.LatentSpec({"z": al.Field((1,))}).blank(1, dtype=torch.float64)
    x = x.map(lambda z: z + 1)
    exact = al.testing.GaussianDenoiser(schedule, 0.0, 0.1)
    wanted = float(exact.flow(x, 1.0, 0.0)["z"])
    errors = []
    for grid in ("uniform", "log_snr"):
        times = al.get("grid", grid)()(schedule, 40)
        found = solve(al.get("solver", "dpmpp_2m")(), exact, schedule, x, times)
        errors.append(abs(float(found["z"]) / wanted - 1))
    assert errors[1] < 0.1 * errors[0]


def test_errors_say_what_to_do():
    schedule = al.get("schedule", "vp")()
    for steps in (0, -3):
        with pytest.raises(ValueError, match="at least 1 step"):
            al.get("grid", "log_snr")()(schedule, steps)
    with pytest.raises(ValueError, match="low < high"):
        al.get("grid", "log_snr")(low=3.0, high=1.0)
    for bad in ({"low": 6.0, "high": 5.0}, {"low_width": 0.0}, {"high_width": -1.0}):
        with pytest.raises(ValueError, match="low < high and positive widths"):
            al.get("grid", "soft")(**bad)
    with pytest.raises(ValueError, match="rho"):
        al.get("grid", "karras")(rho=-1.0)
    # a range that lies outside what the schedule has is not silently repeated
    with pytest.raises(ValueError, match="decrease strictly"):
        al.get("grid", "karras")(sigma_min=140.0)(al.get("schedule", "table")(), 5)
    assert math.isfinite(float(al.get("grid", "karras")()(schedule, 1)[0]))
