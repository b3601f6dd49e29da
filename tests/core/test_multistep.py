"""Multistep solvers: order by slope, published formulas by hand, exact variances, one path."""

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
CASES = [
    *((f"adams:{o}", {"order": o}, o) for o in (2, 3, 4)),
    *((f"adams:{o} without", {"order": o, "corrector": False}, o) for o in (1, 2, 3, 4)),
    *(
        (f"unipc:{o}{v}", {"order": o, "variant": v}, o + 1)
        for o in (1, 2, 3)
        for v in ("bh1", "bh2")
    ),
    *((f"unipc:{o} without", {"order": o, "corrector": False}, o) for o in (1, 2, 3)),
    *((f"deis:{o}", {"order": o}, o) for o in (1, 2, 3)),
    *((f"deis:{o} ratio", {"order": o, "coordinate": "ratio"}, o) for o in (1, 2, 3)),
    *((f"dpm_solver_m:{o}", {"order": o}, o) for o in (1, 2, 3)),
    ("dpmpp_2m", {}, 2),
    ("dpmpp_3m", {}, 3),
    ("plms", {}, 2),
]


def made(name, settings):
    return al.get("solver", name.split(":")[0])(**settings)


WIDE = functools.partial(al.get("grid", "log_snr"), -14.0, 22.0)  # ends that count nothing


SOFT = al.get("grid", "soft")


def solve(solver, denoise, schedule, x, steps, noise=None, grid=SOFT):
    return al.solve(solver, denoise, schedule, x, grid()(schedule, steps), noise)


# ---- order ------------------------------------------------------------------------------------
@pytest.mark.parametrize("schedule", ("vp", "flow", "edm", "cosine"))
@pytest.mark.parametrize(("name", "settings", "order"), CASES, ids=[c[0] for c in CASES])
def test_order_by_slope(name, settings, order, schedule):
    """Against the exact flow; the last error is far from any floor of the grid's ends."""
    solver, schedule = made(name, settings), al.get("schedule", schedule)()
    assert solver.order == order and solver.evaluations == 1
    blank = FINE.blank(4, dtype=torch.float64)
    exact, mean, std = gaussian(schedule, blank)
    x, _ = start(schedule, blank, mean)
    wanted = exact.flow(x, 1.0, 0.0)
    errors = []
    for steps in (80, 160, 320):
        gap = (solve(solver, exact, schedule, x, steps, grid=WIDE) - wanted).map(
            lambda a, b: a / b, std
        )
        errors.append(float((gap.norm() ** 2 / gap.dim).mean().sqrt()))
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert errors[-1] < 1e-9 or max(slopes) > order - 0.25, (errors, slopes)
    assert min(slopes) > 0.5, (errors, slopes)


class Counting:
    def __init__(self, denoise):
        self.denoise, self.calls = denoise, 0

    def __call__(self, x, t):
        self.calls += 1
        return self.denoise(x, t)


MIDDLE = [case for case in CASES if case[0] != "plms" and case[2] > 1]


def from_the_middle(schedule, blank, begin, end):
    """The exact denoiser, its state at `begin`, and where the flow takes it by `end`."""
    exact, mean, _ = gaussian(schedule, blank)
    x, _ = start(schedule, blank, mean)
    begin, end = torch.tensor(begin).double(), torch.tensor(end).double()
    x = exact.flow(x, torch.ones(()).double(), begin)
    return exact, x, exact.flow(x, begin, end)


@pytest.mark.parametrize(("begin", "end"), ((0.7, 0.2), (0.2, 0.7)), ids=("down", "up"))
@pytest.mark.parametrize("schedule", ("vp", "flow"))
@pytest.mark.parametrize(("name", "settings", "order"), MIDDLE, ids=[c[0] for c in MIDDLE])
def test_order_from_the_middle(name, settings, order, schedule, begin, end):
    """A solution begun where the data show keeps its order, and so does an inversion."""
    solver, schedule = made(name, settings), al.get("schedule", schedule)()
    exact, x, wanted = from_the_middle(schedule, FINE.blank(4, dtype=torch.float64), begin, end)
    errors = []
    for steps in (40, 80, 160):
        counting, times = Counting(exact), torch.linspace(begin, end, steps + 1).double()
        found = solver.run(counting, schedule, x, times, None, None)
        assert counting.calls <= steps + 1
        errors.append(float((found - wanted).norm().square().mean().sqrt()))
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert max(slopes) > order - 0.35, (errors, slopes)


def test_a_start_in_the_middle_costs_one_evaluation_and_only_there():
    schedule = al.get("schedule", "vp")()
    exact, x, _ = from_the_middle(schedule, FINE.blank(2, dtype=torch.float64), 1.0, 0.1)
    for name, begin, steps, calls in (
        ("unipc", 1.0, 8, 8),
        ("unipc", 0.9, 8, 9),
        ("unipc", 0.9, 7, 7),
        ("dpmpp_2m", 0.9, 8, 8),
        ("dpmpp_3m", 0.9, 8, 9),
    ):
        counting = Counting(exact)
        times = torch.linspace(begin, 0, steps + 1).double()
        al.solve(al.get("solver", name)(), counting, schedule, x, times)
        assert counting.calls == calls, (name, begin, steps)


@pytest.mark.parametrize("name", ("adams", "unipc", "deis"))
def test_starts_of_one_batch_do_not_mix(name):
    """A sample from pure noise has its own start, whatever another of its batch does."""
    solver, schedule = al.get("solver", name)(), al.get("schedule", "vp")()
    exact, mean, _ = gaussian(schedule, FINE.blank(2, dtype=torch.float64))
    x, _ = start(schedule, FINE.blank(2, dtype=torch.float64), mean)
    exact = al.testing.GaussianDenoiser(schedule, 0.3, 0.5)
    begins = torch.tensor([1.0, 0.6]).double()
    times = torch.linspace(1, 0, 21).double()[:, None] * begins
    both = al.solve(solver, exact, schedule, x, times)
    for k, begin in enumerate(begins):
        alone = x.map(lambda z, k=k: z[k : k + 1])
        found = al.solve(solver, exact, schedule, alone, times[:, k])
        assert torch.allclose(found["z"][0], both["z"][k], atol=1e-12), float(begin)


def test_the_error_of_the_default_falls_without_a_floor():
    solver, schedule = al.get("solver", "adams")(), al.get("schedule", "vp")()
    blank = al.LatentSpec({"z": al.Field((7,))}).blank(1, dtype=torch.float64)
    std = blank.map(lambda z: torch.logspace(math.log10(0.05), math.log10(3), 7).double()[None])
    exact = al.testing.GaussianDenoiser(schedule, 0.0, std)
    x = blank.map(torch.ones_like)
    wanted = exact.flow(x, 1.0, 0.0)
    errors = [
        float(((solve(solver, exact, schedule, x, n) - wanted)["z"] / std["z"]).abs().max())
        for n in (10, 20, 40, 80, 160, 320)
    ]
    assert all(b < 0.3 * a for a, b in itertools.pairwise(errors)), errors
    assert errors[-1] < 1e-6


@pytest.mark.parametrize(
    ("betas", "least"), (((1e-4, 0.02, 1.0), 0.027), ((8.5e-4, 0.012, 2.0), 0.020))
)
def test_the_default_is_accurate_with_ten_steps(betas, least):
    """On DDPM's and Stable Diffusion's tables; the widths of benchmarks/solver_accuracy.py."""
    schedule = al.get("schedule", "table")(*betas[:2], 1000, betas[2])
    blank = al.LatentSpec({"z": al.Field((100,))}).blank(1, dtype=torch.float64)
    std = blank.map(lambda z: torch.logspace(math.log10(0.05), math.log10(3), 100).double()[None])
    exact = al.testing.GaussianDenoiser(schedule, 0.0, std)
    x = schedule.sigma(1.0) * blank.map(torch.ones_like)
    end = solve(al.get("solver", "adams")(), exact, schedule, x, 10)
    gap = (end - exact.flow(x, 1.0, 0.0))["z"]
    error = float((gap / std["z"]).square().mean().sqrt())
    assert error < least


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


@pytest.mark.parametrize("eta", (0.1, 0.3, 1.0))
@pytest.mark.parametrize("name", ("gddim", "dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_2s"))
def test_one_seed_is_one_brownian_path_whatever_the_steps(name, eta):
    """Strong convergence: the same seed at N and 2N steps leads to nearly the same sample."""
    schedule, solver = al.get("schedule", "vp")(), al.get("solver", name)(eta=eta)
    blank = al.LatentSpec({"z": al.Field((64,))}).blank(4, dtype=torch.float64)
    exact = al.testing.GaussianDenoiser(schedule, 0.2, 0.5)

    def draw(steps, seed=0):
        noise = al.Noise.of(seed, 4)
        x = schedule.sigma(1.0) * noise.like(blank)
        return solve(solver, exact, schedule, x, steps, noise, grid=WIDE)["z"]

    reference = draw(640)
    gaps = [float((draw(n) - reference).pow(2).mean().sqrt()) for n in (20, 40, 80, 160)]
    places = 0.01  # what the points of the tree are apart counts for
    assert all(b < max(0.75 * a, places) for a, b in itertools.pairwise(gaps)), gaps
    assert gaps[-1] < 0.1 * float((draw(640, seed=1) - reference).pow(2).mean().sqrt()), gaps


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
