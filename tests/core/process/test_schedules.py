"""Schedules against numbers that are derived here, and the contract over settings."""

import math

import pytest
import torch

import anylatent as al

DDPM = {"beta_start": 1e-4, "beta_end": 0.02, "root": 1.0}


def table_by_hand(start, end, steps, root):
    """ᾱ as a running product of 1 - β, in Python's floats."""
    betas = [
        (start ** (1 / root) + (end ** (1 / root) - start ** (1 / root)) * k / (steps - 1)) ** root
        for k in range(steps)
    ]
    signal, found = 1.0, []
    for beta in betas:
        signal *= 1 - beta
        found.append(signal)
    return found


def signals(schedule):
    """ᾱ at a table's own points t = (k + 1)/T; alpha² + sigma² = 1 there."""
    t = (torch.arange(schedule.steps, dtype=torch.float64) + 1) / schedule.steps
    alpha, sigma = schedule.coefficients(t)
    assert torch.allclose(alpha**2 + sigma**2, torch.ones_like(t), atol=1e-14)
    return alpha**2


def test_the_linear_table_of_ddpm():
    found = signals(al.get("schedule", "table")(**DDPM))
    wanted = torch.tensor(table_by_hand(1e-4, 0.02, 1000, 1), dtype=torch.float64)
    assert torch.allclose(found, wanted, rtol=1e-12)
    assert float(found[0]) == pytest.approx(0.9999, abs=1e-12)
    assert float(found[500]) == pytest.approx(0.07779665837, rel=1e-9)
    assert float(found[999]) == pytest.approx(4.035829765e-5, rel=1e-9)


def test_stable_diffusion_s_table_is_the_default():
    found = signals(al.get("schedule", "table")())
    wanted = torch.tensor(table_by_hand(0.00085, 0.012, 1000, 2), dtype=torch.float64)
    assert torch.allclose(found, wanted, rtol=1e-12)
    assert float(found[999]) == pytest.approx(0.004660098513, rel=1e-9)


def test_a_table_is_interpolated_linearly_in_signal():
    schedule = al.get("schedule", "table")()
    found = signals(schedule)
    middle = schedule.alpha((500.5 + 1) / 1000) ** 2
    assert float(middle) == pytest.approx(float(found[500] + found[501]) / 2, rel=1e-12)
    first = schedule.alpha(0.0005) ** 2  # ᾱ(0) = 1 comes before the table
    assert float(first) == pytest.approx((1 + float(found[0])) / 2, rel=1e-12)


def test_zero_terminal_snr_shifts_and_stretches_alpha():
    plain, zero = (
        al.get("schedule", "table")(**DDPM),
        al.get("schedule", "table")(**DDPM, zero_terminal_snr=True),
    )
    assert float(zero.alpha(1.0)) == 0 and zero.terminal_snr_is_zero
    assert float(zero.log_snr(1.0)) == -math.inf
    a, b = signals(plain).sqrt(), signals(zero).sqrt()
    assert float(b[0]) == pytest.approx(float(a[0]), rel=1e-12)
    assert float(b[300]) == pytest.approx(
        float((a[300] - a[999]) * a[0] / (a[0] - a[999])), rel=1e-12
    )


def test_the_discrete_cosine_table_with_clipped_betas():
    """Nichol and Dhariwal's: ᾱ of f(t) = cos², β clipped at .999; t = (k + 1)/T elsewhere."""

    def f(t):
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    signal, found = 1.0, []
    for k in range(1000):
        signal *= 1 - min(1 - f((k + 1) / 1000) / f(k / 1000), 0.999)
        found.append(signal)
    assert found[500] == pytest.approx(0.4922851724, rel=1e-9)
    schedule = al.get("schedule", "cosine")()
    for k in (0, 100, 500, 900, 998):
        assert float(schedule.alpha((k + 1) / 1000) ** 2) == pytest.approx(found[k], rel=1e-9)
    assert float(schedule.alpha(1.0)) == 0  # no clipping in continuous time


def test_the_vp_sde_at_one_half():
    """∫β = β₀t + (β₁ - β₀)t²/2 = 2.5375 at t = .5; α² = e^{-∫β}."""
    integral = 0.1 * 0.5 + 19.9 * 0.25 / 2
    alpha = math.exp(-integral / 2)
    wanted = math.log(alpha / math.sqrt(1 - alpha**2))
    assert wanted == pytest.approx(-1.227567734, rel=1e-9)
    assert 0.5 * float(al.get("schedule", "vp")().log_snr(0.5)) == pytest.approx(wanted, rel=1e-12)


def test_edm_noise_levels_are_karras_s_grid():
    """σ(t) = 80·t⁷ and ρ = 7, n = 18: 80, 57.585985, …, .00752802, .002."""
    ends = (80 ** (1 / 7), 0.002 ** (1 / 7))
    levels = [(ends[0] + (ends[1] - ends[0]) * k / 17) ** 7 for k in range(18)]
    assert levels[1] == pytest.approx(57.585985, rel=1e-7)
    assert levels[16] == pytest.approx(0.00752802, rel=1e-6)
    schedule = al.get("schedule", "edm")()
    times = al.get("grid", "karras")()(schedule, 18)
    found = schedule.sigma(times)
    assert torch.allclose(found[:-1], torch.tensor(levels, dtype=torch.float64), rtol=1e-10)
    assert float(found[-1]) == 0


def integral_of_beta(t):
    """∫β of the VP-SDE by hand: β₀t + (β₁ - β₀)t²/2."""
    return 0.1 * t + 19.9 * t**2 / 2


@pytest.mark.parametrize("t", (0.01, 0.3, 1.0))
def test_the_sub_vp_sde_has_the_square_of_vp_s_variance(t):
    schedule = al.get("schedule", "sub_vp")()
    assert float(schedule.alpha(t)) == pytest.approx(math.exp(-integral_of_beta(t) / 2), rel=1e-12)
    assert float(schedule.sigma(t)) == pytest.approx(1 - math.exp(-integral_of_beta(t)), rel=1e-12)
    # its λ in closed form: σ/α = 1/α - α = 2·sinh(∫β/2)
    ratio = 2 * math.sinh(integral_of_beta(t) / 2)
    assert float(schedule.log_snr(t)) == pytest.approx(-2 * math.log(ratio), rel=1e-12)


def test_polynomial_is_edm_s_schedule_of_molecules_but_for_its_first_noise():
    """Published: ᾱ = (1 - 2s)·(1 - t²)² + s; here sigma(0) = 0, so both differ by s at most."""
    schedule, t = al.get("schedule", "polynomial")(), torch.linspace(0, 1, 101).double()
    published = (1 - 2e-5) * (1 - t**2) ** 2 + 1e-5
    assert float((schedule.alpha(t) ** 2 - published).abs().max()) <= 1.01e-5
    assert float(schedule.alpha(1.0) ** 2) == pytest.approx(1e-5, rel=1e-12)
    assert float(schedule.alpha(0.0)) == 1


def product(signal, steps):
    """ᾱ of a discrete process with β_k = 1 - ᾱ(t_k+1)/ᾱ(t_k), clipped at .999."""
    found = [1.0]
    for k in range(steps):
        found.append(found[-1] * (1 - min(1 - signal((k + 1) / steps) / signal(k / steps), 0.999)))
    return found


def test_sqrt_is_diffusion_lm_s_table():
    """ᾱ(t) = 1 - √(t + s); u = (t + s)/(1 + s) instead of t + s moves it by s/2 at most."""
    found = product(lambda t: 1 - math.sqrt(t + 1e-4), 2000)
    schedule = al.get("schedule", "sqrt")()
    for k in (1, 20, 500, 1500, 1990):
        assert float(schedule.alpha(k / 2000) ** 2) == pytest.approx(found[k], abs=1e-4), k
    assert found[20] < 0.92  # much noise at once: a hundredth of the time
    assert float(schedule.alpha(1.0)) == 0


def test_geometric_is_lsgm_s_process_from_data_without_noise():
    """Var(z_t) = m²·v₀ + (1 - m²) = v₀·(v₁/v₀)^t for latents of variance v₀, m = alpha."""
    schedule, low, high = al.get("schedule", "geometric")(), 3e-5, 0.999
    t = torch.linspace(0, 1, 51, dtype=torch.float64)
    alpha, sigma = schedule.coefficients(t)
    assert torch.allclose(alpha**2 * low + sigma**2, low * (high / low) ** t, rtol=1e-12)
    beta = -2 * schedule.rates(t)[0] / alpha  # their β = (dv/dt)/(1 - v)
    variance = low * (high / low) ** t
    assert torch.allclose(beta, variance * math.log(high / low) / (1 - variance), rtol=1e-9)


@pytest.mark.parametrize(("start", "end", "tau"), ((-3, 3, 1.0), (0, 3, 0.3), (-3, 3, 0.1)))
def test_the_sigmoid_schedule_is_the_published_formula(start, end, tau):
    schedule = al.get("schedule", "sigmoid")(float(start), float(end), tau)
    curve = lambda t: 1 / (1 + math.exp(-(t * (end - start) + start) / tau))  # noqa: E731
    for t in (0.0, 0.2, 0.5, 0.8, 1.0):
        wanted = (curve(1) - curve(t)) / (curve(1) - curve(0))
        assert float(schedule.alpha(t) ** 2) == pytest.approx(wanted, abs=1e-12)
    assert float(schedule.alpha(1.0)) == 0 and float(schedule.sigma(0.0)) == 0


@pytest.mark.parametrize("name", ("vp", "table", "geometric"))
def test_any_schedule_is_rescaled_to_zero_terminal_snr(name):
    base = al.get("schedule", name)()
    schedule = al.get("schedule", "zero_terminal_snr")(base)
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    last = base.alpha(1.0)
    wanted = (base.alpha(t) - last) / (1 - last)  # algorithm 1, begun at alpha(0) = 1
    assert torch.allclose(schedule.alpha(t), wanted, atol=1e-14)
    assert torch.allclose(schedule.sigma(t), (1 - wanted**2).sqrt(), atol=1e-12)
    assert float(schedule.alpha(1.0)) == 0 and float(schedule.log_snr(1.0)) == -math.inf
    assert float(last) > 0


def test_rescaling_keeps_the_kind_and_leaves_alone_what_ends_at_zero():
    t = torch.linspace(0, 1, 31, dtype=torch.float64)
    rescale = al.get("schedule", "zero_terminal_snr")
    curve = rescale(al.get("schedule", "sub_vp")())
    assert torch.allclose(curve.sigma(t), 1 - curve.alpha(t) ** 2, atol=1e-13)
    for name in ("flow", "cosine", "sqrt"):
        base = al.get("schedule", name)()
        for got, wanted in zip(rescale(base).coefficients(t), base.coefficients(t), strict=True):
            assert torch.allclose(got, wanted, atol=1e-13), name


@pytest.mark.parametrize(("name", "text"), (("edm", "alpha = 1"), ("learned", "learns where")))
def test_a_schedule_that_can_t_end_at_zero_snr_is_refused(name, text):
    with pytest.raises(ValueError, match=text):
        al.get("schedule", "zero_terminal_snr")(al.get("schedule", name)())


@pytest.mark.parametrize("outer", ("shifted", "zero_terminal_snr"))
@pytest.mark.parametrize("name", al.names("schedule"))
def test_schedules_of_schedules_keep_the_contract(outer, name):
    if (outer, name) in (("zero_terminal_snr", "edm"), ("zero_terminal_snr", "learned")):
        return  # refused, see above
    al.testing.check_schedule(al.get("schedule", outer)(al.get("schedule", name)()))


@pytest.mark.parametrize(
    "name", [n for n in al.names("schedule") if n not in ("cosine", "table", "learned")]
)
@torch.no_grad()
def test_the_log_snr_keeps_its_digits_near_both_ends(name):
    """time(λ) and back, at λ where 1 - alpha² or alpha² is near the rounding of float64."""
    schedule = al.get("schedule", name)()
    low = float(schedule.log_snr(1.0))
    levels = torch.tensor([40.0, 30.0, 20.0, -20.0, -30.0], dtype=torch.float64)
    levels = levels[levels > low]
    found = schedule.log_snr(schedule.time(levels))
    # t near 1 has 1e-16 of its own: of alpha ∝ 1 - t at λ = -20, 1e-12
    assert torch.allclose(found, levels, atol=1e-8), found


def test_flow_is_straight_and_velocity_its_rate():
    schedule = al.get("schedule", "flow")()
    t = torch.tensor([0.0, 0.25, 1.0]).double()
    assert torch.equal(schedule.alpha(t), 1 - t) and torch.equal(schedule.sigma(t), t)
    assert [float(c) for c in schedule.rates(0.3)] == [-1, 1]


@pytest.mark.parametrize("shift", (0.5, 1.0, 3.0))
def test_a_shift_on_flow_is_the_time_shift(shift):
    schedule = al.get("schedule", "shifted")(shift=shift)
    t = torch.linspace(0, 1, 21, dtype=torch.float64)
    assert torch.allclose(schedule.sigma(t), shift * t / (1 + (shift - 1) * t), atol=1e-15)


@pytest.mark.parametrize("name", [n for n in ("vp", "cosine", "edm", "flow", "table")])
def test_a_shift_lowers_the_log_snr_of_any_schedule_and_keeps_its_kind(name):
    base = al.get("schedule", name)()
    schedule = al.get("schedule", "shifted")(base, shift=4.0)
    t = torch.linspace(0.001, 0.999, 101, dtype=torch.float64)
    drop = schedule.log_snr(t) - base.log_snr(t)
    assert torch.allclose(drop, torch.full_like(t, -2 * math.log(4)), atol=1e-9)
    al.testing.check_schedule(schedule)


def test_contracts_over_settings():
    make = lambda name, **settings: al.get("schedule", name)(**settings)  # noqa: E731
    for schedule in (
        make("vp", beta_min=0.01, beta_max=40.0),
        make("cosine", offset=0.02),
        make("edm", sigma_max=500.0, rho=3.0),
        make("table", **DDPM),
        make("table", **DDPM, zero_terminal_snr=True),
        make("polynomial", power=3.0, floor=1e-3),
        make("geometric", variance_max=1.0),
        make("sigmoid", start=0.0, tau=0.3),
        make("learned", low=-5.0, width=4),
        make("sub_vp", beta_min=1.0),
        make("table", steps=10, beta_start=0.01, beta_end=0.7),
    ):
        al.testing.check_schedule(schedule)


def test_numbers_and_tensors_give_the_same_time():
    """A Python float must not pass through float32 (it did: alpha(.3) was off by 1e-8)."""
    for name in al.names("schedule"):
        schedule = al.get("schedule", name)()
        if schedule.learned is not None:
            schedule.requires_grad_(False)
        assert float(schedule.alpha(0.3)) == float(
            schedule.alpha(torch.tensor(0.3, dtype=torch.float64))
        )
        assert float(schedule.time(0.3)) == float(
            schedule.time(torch.tensor(0.3, dtype=torch.float64))
        )


def test_settings_without_meaning_are_errors():
    for name, settings in (
        ("vp", {"beta_min": 3.0, "beta_max": 1.0}),
        ("cosine", {"offset": 0.0}),
        ("edm", {"sigma_max": -1.0}),
        ("table", {"beta_start": 0.5, "beta_end": 0.1}),
        ("table", {"steps": 1, "zero_terminal_snr": True}),
        ("shifted", {"shift": 0.0}),
        ("polynomial", {"floor": 0.0}),
        ("polynomial", {"power": 0.5}),
        ("sqrt", {"offset": 0.0}),
        ("geometric", {"variance_min": 0.5, "variance_max": 0.1}),
        ("sigmoid", {"tau": 0.0}),
        ("learned", {"low": 20.0}),
    ):
        with pytest.raises(ValueError):
            al.get("schedule", name)(**settings)
