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
@given(
    names, st.sampled_from(["uniform", "log_snr", "karras", "soft", "shifted"]), st.integers(1, 400)
)
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


# ---- from the middle ----------------------------------------------------------------------------
@settings(max_examples=80, deadline=None)
@given(names, st.sampled_from(al.names("grid")), st.integers(1, 60), st.floats(-9, 19))
def test_from_any_time_on_they_fall_strictly_to_0(name, grid, steps, level):
    schedule = al.get("schedule", name)()
    start = float(schedule.time(max(level, float(schedule.log_snr(1.0)))))
    times = al.get("grid", grid)().below(schedule, start, steps)
    assert times.shape == (steps + 1,) and times.dtype == torch.float64
    assert float(times[0]) == start and float(times[-1]) == 0 and bool((times.diff() < 0).all())


@pytest.mark.parametrize("name", ("vp", "flow"))
def test_below_is_the_grid_s_own_law(name):
    """Equal steps of t, of λ, of σ^(1/ρ), of g and of the law's quantiles, from the start on."""
    schedule, t = al.get("schedule", name)(), torch.tensor(0.6).double()
    level = float(schedule.log_snr(t))
    get = lambda grid, **own: al.get("grid", grid)(**own).below(schedule, t, 12)  # noqa: E731
    assert torch.allclose(get("uniform"), 0.6 * (1 - torch.arange(13).double() / 12))
    steps = schedule.log_snr(get("log_snr")[:-1]).diff()
    assert torch.allclose(steps, torch.full_like(steps, (14 - level) / 12), atol=1e-8)
    root = torch.exp(-0.5 * schedule.log_snr(get("karras")[:-1]) / 7)
    assert torch.allclose(root.diff(), root.diff()[:1].expand(11), atol=1e-9)
    part = al.get("grid", "soft")(low_drift=0.0, high_drift=0.0)
    g = part._height(schedule.log_snr(part.below(schedule, t, 12))[:-1], part.low, part.high)
    assert torch.allclose(g / g[0], 1 - torch.arange(12).double() / 12, atol=1e-9)
    law = al.get("times", "log_normal")()
    times = al.get("grid", "warped")(law).below(schedule, t, 12)
    share = torch.special.ndtr((-0.5 * schedule.log_snr(times[:-1]) + 1.2) / 1.2)
    assert torch.allclose(share / share[0], 1 - torch.arange(12).double() / 12, atol=1e-6)


def test_soft_steps_from_the_middle_are_as_those_of_a_whole_solution_as_dense():
    """The last steps of 10 from there are about the last 10 of as many more from noise."""
    schedule, grid = al.get("schedule", "vp")(), al.get("grid", "soft")()
    whole = grid(schedule, 20)
    rest = grid.below(schedule, whole[10], 10)
    assert torch.allclose(schedule.log_snr(rest[:-1]), schedule.log_snr(whole[10:-1]), atol=0.05)


def test_a_start_above_the_last_level_has_its_steps_too():
    schedule = al.get("schedule", "edm")()
    for grid, level in (("log_snr", 14.5), ("karras", 13.0)):
        start = schedule.time(level)
        times = al.get("grid", grid)().below(schedule, start, 6)
        assert len(times) == 7 and bool((times.diff() < 0).all())
    for start in (0.0, -0.1, 1.1, torch.tensor([0.5, 0.0])):
        with pytest.raises(ValueError, match="starts at times above 0"):
            al.get("grid", "uniform")().below(schedule, start, 3)


# ---- shifted ------------------------------------------------------------------------------------
@pytest.mark.parametrize("shift", (0.5, 3.0, 6.0))
def test_on_flow_a_shift_is_that_of_the_times(shift):
    """t' = s·t / (1 + (s - 1)·t), once, on any base (2403.03206)."""
    flow = al.get("schedule", "flow")()
    for base in (al.get("grid", "uniform")(), al.get("grid", "log_snr")(-8.0, 8.0)):
        t = base(flow, 15)
        times = al.get("grid", "shifted")(base, shift)(flow, 15)
        assert torch.allclose(times, shift * t / (1 + (shift - 1) * t), atol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("start", (1.0, 0.6))
def test_a_shift_moves_the_log_snr_and_not_the_ends(name, start):
    """By 2·log 3 against the base's steps from where the start comes from."""
    schedule = al.get("schedule", name)()
    times = al.get("grid", "shifted")(shift=3.0).below(schedule, start, 9)
    assert float(times[0]) == start and float(times[-1]) == 0
    move = 2 * math.log(3)
    before = schedule.time(schedule.log_snr(start) + move)
    t = torch.linspace(float(before), 0, 10, dtype=torch.float64)[1:-1]
    assert torch.allclose(schedule.log_snr(times[1:-1]), schedule.log_snr(t) - move, atol=1e-9)
    if name != "edm":  # where it is equal steps of a power of sigma, which a factor does not change
        plain = al.get("grid", "uniform")().below(schedule, start, 9)
        assert not torch.allclose(times, plain, atol=0.05)


def test_a_shifted_grid_is_not_a_shifted_schedule():
    """The model's process stays: the exact denoiser of a plain schedule ends at the data's law."""
    from anylatent.core.solvers import solve

    flow = al.get("schedule", "flow")()
    spec = al.LatentSpec({"z": al.Field((1,))})
    x = spec.blank(1, dtype=torch.float64).map(lambda z: z + 1)
    exact = al.testing.GaussianDenoiser(flow, 0.0, 0.3)
    errors = []
    for steps in (20, 40):
        times = al.get("grid", "shifted")(al.get("grid", "log_snr")())(flow, steps)
        found = solve(al.get("solver", "dpmpp_2m")(), exact, flow, x, times)
        errors.append(abs(float(found["z"]) - 0.3))
    assert errors[1] < 0.004 and errors[1] < 0.4 * errors[0]
    with pytest.raises(ValueError, match="positive"):
        al.get("grid", "shifted")(shift=0.0)
