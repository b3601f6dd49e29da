"""Multistep solvers: published formulas by hand, exact variances, one path."""

import functools
import itertools
import math

import pytest
import torch

import anylatent as al
from anylatent.core.solvers.exponential import Exponential
from anylatent.core.solvers.multistep import lagrange, over_angle, over_power
from anylatent.core.testing.sampling import responses
from tests.core.toys import distance, gaussian, start

FINE = al.LatentSpec({"z": al.Field((3, 4))})
WIDTHS = (0.05, 0.2, 0.5, 1.0, 3.0)
WIDE = functools.partial(al.get("grid", "log_snr"), -14.0, 22.0)  # ends that count nothing


SOFT = al.get("grid", "soft")


def solve(solver, denoise, schedule, x, steps, noise=None, grid=SOFT):
    return al.solve(solver, denoise, schedule, x, grid()(schedule, steps), noise)


# ---- the weights ------------------------------------------------------------------------------
def test_means_of_polynomials_are_exact():
    """∫ u² over a step in κ, ρ and φ against closed forms, in the coordinate u = ρ."""
    low, high = torch.tensor([-3.0]).double(), torch.tensor([1.2]).double()
    a, b = torch.exp(-0.5 * low), torch.exp(-0.5 * high)  # ρ

    def mean(rule, power):
        points, weights = rule(low, high)
        return torch.einsum("j,j...->...", weights, torch.exp(-0.5 * points) ** power)

    noise = mean(lambda s, t: over_power(s, t, -1.0), 2)  # ∫ρ² dρ / ∫dρ
    assert torch.allclose(noise, (a**3 - b**3) / (3 * (a - b)), rtol=1e-12)
    data = mean(lambda s, t: over_power(s, t, 1.0), 2)  # ∫κ⁻² dκ / ∫dκ = 1/(κ_s κ_t)
    assert torch.allclose(data, a * b, rtol=1e-12)
    angle = mean(over_angle, 2)  # ∫tan² = tan φ - φ
    wanted = 1 - (a - b) / (a.atan() - b.atan())
    assert torch.allclose(angle, -wanted, rtol=1e-12)


def test_unbounded_means_are_limits():
    infinite = torch.tensor([torch.inf]).double()
    points, weights = over_power(torch.tensor([2.0]).double(), infinite, 1.0)
    assert bool((points == torch.inf).all())  # the value at the end
    points, weights = over_power(torch.tensor([2.0]).double(), infinite, -1.0)
    mean = torch.einsum("j,j...->...", weights, torch.exp(-0.5 * points))
    assert float(mean) == pytest.approx(0.5 * math.exp(-1), rel=1e-12)  # of ρ over [0, ρ_t]


def test_lagrange_weights_reproduce_polynomials():
    points, weights = (
        torch.linspace(0, 1, 5).double()[:, None],
        torch.full((5,), 0.2, dtype=torch.float64),
    )
    nodes = [torch.tensor([v]).double() for v in (-0.3, 0.4, 2.0)]
    found = lagrange(points, nodes, weights)
    for power in range(3):
        wanted = (points**power).mean()
        assert float(sum(w * n**power for w, n in zip(found, nodes, strict=True))) == pytest.approx(
            float(wanted), abs=1e-12
        )


# ---- published formulas, by hand --------------------------------------------------------------
def trajectory(solver, schedule, times, x, exact, noise=None):
    states = []
    al.solve(solver, exact, schedule, x, times, noise, lambda i, t, x: states.append(x["z"]))
    return states


def levels(schedule, times):
    alpha, sigma = schedule.coefficients(times)
    pairs = zip(alpha.tolist(), sigma.tolist(), strict=True)
    return [(a, s, math.log(a / s) if s > 0 else math.inf) for a, s in pairs]


@pytest.fixture
def problem():
    schedule = al.get("schedule", "vp")()
    blank = FINE.blank(3, dtype=torch.float64)
    exact, mean, _ = gaussian(schedule, blank)
    x, _ = start(schedule, blank, mean)
    return schedule, exact, x, al.get("grid", "log_snr")()(schedule, 9)


def test_dpmpp_2m_by_hand(problem):
    """Algorithm 2 of 2211.01095, and no second order where λ is infinite."""
    schedule, exact, x, times = problem
    table, z, last, found = levels(schedule, times), x, None, []
    for i in range(9):
        (_, s, now), (a1, s1, then) = table[i], table[i + 1]
        x0, h, d = exact(z, times[i]), then - now, None
        if last is not None and then < math.inf:
            r = (now - table[i - 1][2]) / h
            d = (1 + 1 / (2 * r)) * x0 - (1 / (2 * r)) * last
        z = (s1 / s) * z - a1 * math.expm1(-h) * (x0 if d is None else d)
        last = x0
        found.append(z["z"])
    compare(al.get("solver", "dpmpp_2m")(), problem, found)


def compare(solver, problem, states):
    schedule, exact, x, times = problem
    for mine, wanted in zip(trajectory(solver, schedule, times, x, exact), states, strict=True):
        assert torch.allclose(mine, wanted, atol=1e-9), float((mine - wanted).abs().max())


@pytest.mark.parametrize("variant", ("bh1", "bh2"))
@pytest.mark.parametrize("order", (1, 2, 3))
def test_unipc_by_hand(problem, order, variant):
    """Algorithms 5 to 8 of 2302.04867 for x0: the linear systems of D_m and B(h), solved here."""
    schedule, exact, x, times = problem
    table = levels(schedule, times)

    def update(z, i, j, known, new, degree):
        """x at j from x at i by `degree` differences: of known points, and of the new one."""
        (_, s, now), (a1, s1, then) = table[i], table[j]
        h = then - now
        b_h = -h if variant == "bh1" else math.expm1(-h)
        z = (s1 / s) * z - a1 * math.expm1(-h) * known[0][1]
        ratios = [(l_k - now) / h for l_k, _ in known[1:]] + ([1.0] if new is not None else [])
        values = [m for _, m in known[1:]] + ([new] if new is not None else [])
        if not ratios:
            return z
        rows, right, phi, factorial = [], [], math.expm1(-h) / -h - 1, 1
        for k in range(1, len(ratios) + 1):
            rows.append([r ** (k - 1) for r in ratios])
            factorial *= k
            right.append(phi * factorial / b_h)
            phi = phi / -h - 1 / (factorial * (k + 1))
        if len(ratios) == 1:
            weights = [0.5]
        else:
            weights = torch.linalg.solve(torch.tensor(rows).double(), torch.tensor(right).double())
        for w, r, m in zip(weights, ratios, values, strict=True):
            z = z - (a1 * b_h * float(w) / r) * (m - known[0][1])
        return z

    z, base, found, history = x, None, [], []
    for i in range(9):
        new = exact(z, times[i])
        if base is not None and table[i - 1][2] > -math.inf:
            z = update(base[0], i - 1, i, history[: base[1]], new, base[1])
        history.insert(0, (table[i][2], new))
        degree = min(order, i + 1) if table[i + 1][2] < math.inf else 1
        base = (z, min(order, i + 1))
        z = update(z, i, i + 1, history[:degree], None, degree) if degree else z
        if table[i + 1][2] == math.inf:
            z = table[i + 1][0] * new
        found.append(z["z"])
    solver = al.get("solver", "unipc")(order=order, variant=variant)
    compare(solver, problem, found)


def test_deis_of_second_order_by_hand(problem):
    """ρAB2: Adams and Bashforth's weights for unequal steps of ρ."""
    schedule, exact, x, times = problem
    table, y, last, found = levels(schedule, times), x / float(schedule.alpha(1.0)), None, []
    for i in range(9):
        (a, s, _), (a1, s1, _) = table[i], table[i + 1]
        noise = (a * y - a * exact(a * y, times[i])) / s
        h, mean = s1 / a1 - s / a, noise
        if last is not None:
            before = s / a - table[i - 1][1] / table[i - 1][0]
            mean = (1 + h / (2 * before)) * noise - (h / (2 * before)) * last
        y, last = y + h * mean, noise
        found.append(a1 * y["z"])
    solver = al.get("solver", "deis")(order=2, coordinate="ratio")
    compare(solver, problem, found)


def test_plms_by_hand(problem):
    """2202.09778, eq. 12 and 13, with DDIM's transfer."""
    schedule, exact, x, times = problem
    table, z, past, found = levels(schedule, times), x, [], []
    for i in range(9):
        (a, s, _), (a1, s1, _) = table[i], table[i + 1]
        past.insert(0, (z - a * exact(z, times[i])) / s)
        weights = ((24,), (36, -12), (46, -32, 10), (55, -59, 37, -9))[min(i, 3)]
        mean = sum((w / 24 * e for w, e in zip(weights, past, strict=False)), start=0 * z)
        z = (a1 / a) * z + (s1 - s * a1 / a) * mean
        found.append(z["z"])
    compare(al.get("solver", "plms")(), problem, found)


def test_adams_of_first_order_by_hand_is_exact_for_normal_data(problem):
    """Euler's step of v in the angle; v is zero for data N(0, 1), whatever the steps."""
    schedule, exact, x, times = problem
    table, z, found = levels(schedule, times), x, []
    for i in range(9):
        (a, s, _), (a1, s1, _) = table[i], table[i + 1]
        x0, phi, phi1 = exact(z, times[i]), math.atan2(s, a), math.atan2(s1, a1)
        noise = (z - a * x0) / s
        unit = (1 / math.hypot(a, s)) * z
        v = math.cos(phi) * noise - math.sin(phi) * x0
        z = math.hypot(a1, s1) * (unit + (phi1 - phi) * v)
        found.append(z["z"])
    solver = al.get("solver", "adams")(order=1)
    compare(solver, problem, found)
    for name, steps in itertools.product(("vp", "flow", "cosine", "edm"), (4, 7, 20)):
        schedule = al.get("schedule", name)()
        normal = al.testing.GaussianDenoiser(schedule, 0.0, 1.0)
        x, _ = start(schedule, FINE.blank(2, dtype=torch.float64))
        end = solve(al.get("solver", "adams")(), normal, schedule, x, steps)
        assert distance(end, normal.flow(x, 1.0, 0.0)) < 1e-9


@pytest.mark.parametrize(
    ("order", "steps", "degree"), ((4, 15, 2), (4, 16, 3), (3, 16, 2), (2, 16, 2))
)
def test_adams_predicts_with_one_order_less_than_it_corrects(order, steps, degree):
    """With two at least, and with two where steps are few."""
    schedule = al.get("schedule", "vp")()
    blank = FINE.blank(2, dtype=torch.float64)
    exact, mean, _ = gaussian(schedule, blank)
    x, _ = start(schedule, blank, mean)
    adams = al.get("solver", "adams")(order=order)
    same = Exponential(degree, adams.coordinate, of="velocity", corrector=order - 1)
    ends = [solve(solver, exact, schedule, x, steps) for solver in (adams, same)]
    assert distance(*ends) < 1e-12
    other = Exponential(5 - degree, adams.coordinate, of="velocity", corrector=order - 1)
    assert distance(ends[0], solve(other, exact, schedule, x, steps)) > 1e-6


def test_special_cases_are_one_formula(problem):
    schedule, exact, x, times = problem
    same = {
        "ddim": al.get("solver", "ddim")(),
        "gddim at 0": al.get("solver", "gddim")(eta=0.0),
        "deis 1": al.get("solver", "deis")(order=1),
        "dpm_solver_m 1": al.get("solver", "dpm_solver_m")(order=1),
        "unipc 1": al.get("solver", "unipc")(order=1, corrector=False),
    }
    ends = [trajectory(s, schedule, times, x, exact)[-1] for s in same.values()]
    for name, end in zip(same, ends, strict=True):
        assert torch.allclose(end, ends[0], atol=1e-10), name
    pair = al.get("solver", "unipc")(order=2, corrector=False), al.get("solver", "dpmpp_2m")()
    a, b = (trajectory(s, schedule, times, x, exact)[-1] for s in pair)
    assert torch.allclose(a, b, atol=1e-10)


@pytest.mark.parametrize("steps", (1, 2, 3))
def test_a_few_steps_end_in_x0_itself(steps):
    """What extrapolates to the data from so little would leave noise in them."""
    schedule, seen = al.get("schedule", "flow")(), []
    blank = FINE.blank(2, dtype=torch.float64)
    exact, mean, _ = gaussian(schedule, blank)

    def denoise(x, t):
        seen.append(exact(x, t))
        return seen[-1]

    x, _ = start(schedule, blank, mean)
    end = solve(al.get("solver", "adams")(), denoise, schedule, x, steps)
    assert len(seen) == steps and distance(end, seen[-1]) < 1e-12


# ---- noise ------------------------------------------------------------------------------------
def sde_std(schedule, times, width, order, eta):
    """The deviation of the SDE solvers for data N(0, width²).

    Each state is the list of its responses to the start and to every draw.
    """
    table = levels(schedule, times)
    count = len(times)
    a, s, _ = table[0]
    z = torch.zeros(count).double()
    z[0] = math.sqrt(a**2 * width**2 + s**2)
    last = older = None
    for i in range(count - 1):
        (a, s, now), (a1, s1, then) = table[i], table[i + 1]
        x0 = a * width**2 / (a**2 * width**2 + s**2) * z
        h = then - now
        if h == math.inf:
            z, last = a1 * x0, x0
            continue
        gain = a1 * -math.expm1(-(1 + eta**2) * h)
        d = gain * x0
        if order == 2 and last is not None:
            d = d + gain * (x0 - last) / (2 * (now - table[i - 1][2]) / h)
        elif order == 3 and last is not None:
            d = polynomial(table, i, [x0, last, older], 1 + eta**2)
        z = s1 / s * math.exp(-(eta**2) * h) * z + d
        z[i + 1] += s1 * math.sqrt(-math.expm1(-2 * eta**2 * h))
        last, older = x0, last
    return float(z.norm())


def polynomial(table, i, values, power):
    """α_s·∫ power·exp(power·(λ - λ_s))·x0 dλ over step i, x0 a polynomial in λ.

    By the moments of the exponential, in u = λ - λ_t: M_k = ∫ u^k, by parts.
    """
    now, (a1, _, then) = table[i][2], table[i + 1]
    h = then - now
    moments = [-math.expm1(-power * h)]
    for k in (1, 2):
        moments.append(h**k - k / power * moments[-1])
    first, second = values[0], values[1]
    u1 = table[i - 1][2] - now
    slope = (second - first) / u1
    found = first * moments[0]
    if values[2] is None:
        return a1 * (found + slope * moments[1])
    u2 = table[i - 2][2] - now
    bend = ((values[2] - first) / u2 - slope) / (u2 - u1)
    return a1 * (found + slope * moments[1] + bend * (moments[2] - u1 * moments[1]))


@pytest.mark.parametrize("steps", (10, 20, 100))
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("name", "settings", "order"),
    (
        ("gddim", {}, 1),
        ("gddim", {"eta": 0.6}, 1),
        ("dpmpp_2m_sde", {}, 2),
        ("dpmpp_2m_sde", {"eta": 0.5}, 2),
        ("dpmpp_3m_sde", {}, 3),
        ("dpmpp_3m_sde", {"eta": 0.7}, 3),
    ),
)
def test_the_deviation_of_samples_is_exactly_that_of_the_formula(
    name, settings, order, width, steps
):
    schedule = al.get("schedule", "vp")()
    times = al.get("grid", "log_snr")()(schedule, steps)
    wanted = sde_std(schedule, times, width, order, settings.get("eta", 1.0))
    solver = al.get("solver", name)(**settings)
    *_, (t, _, std) = responses(solver, schedule, steps, 0.0, width, steps + 1)
    assert t == 0 and std == pytest.approx(wanted, rel=1e-9)


ONE = {("gddim", 0.3), ("dpmpp_2m_sde", 1.0), ("dpmpp_3m_sde", 0.1), ("dpmpp_2s", 1.0)}
PATHS = [
    pytest.param(name, eta, marks=[] if (name, eta) in ONE else pytest.mark.slow)
    for name in ("gddim", "dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_2s")
    for eta in (0.1, 0.3, 1.0)
]


@pytest.mark.parametrize(("name", "eta"), PATHS)
def test_one_seed_is_one_brownian_path_whatever_the_steps(name, eta):
    """Strong convergence: the same seed at N and 2N steps leads to nearly the same sample."""
    schedule, solver = al.get("schedule", "vp")(), al.get("solver", name)(eta=eta)
    blank = al.LatentSpec({"z": al.Field((64,))}).blank(4, dtype=torch.float64)
    exact = al.testing.GaussianDenoiser(schedule, 0.2, 0.5)

    def draw(steps, seed=0):
        noise = al.Noise.of(seed, 4)
        x = schedule.sigma(1.0) * noise.like(blank)
        return solve(solver, exact, schedule, x, steps, noise, grid=WIDE)["z"]

    reference = draw(320)
    gaps = [float((draw(n) - reference).pow(2).mean().sqrt()) for n in (20, 40, 80)]
    places = 0.01  # what the points of the tree are apart counts for
    assert all(b < max(0.75 * a, places) for a, b in itertools.pairwise(gaps)), gaps
    assert gaps[-1] < 0.1 * float((draw(320, seed=1) - reference).pow(2).mean().sqrt()), gaps


def test_bad_settings_say_what_is_allowed():
    for name, settings, message in (
        ("unipc", {"order": 4}, "orders 1, 2 and 3, got 4"),
        ("unipc", {"variant": "bh3"}, "bh1 or bh2, got bh3"),
        ("deis", {"order": 0}, "1 to 3, got 0"),
        ("deis", {"coordinate": "sigma"}, "time.*got sigma"),
        ("dpm_solver_m", {"order": 5}, "got 5"),
        ("adams", {"order": 9}, "orders 1 to 4, got 9"),
        ("gddim", {"eta": -1.0}, "not be negative, got -1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            al.get("solver", name)(**settings)
