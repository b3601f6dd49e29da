"""Solvers on exact Gaussians: order, exact variance, one trajectory, subspace, independence."""

import itertools
import math

import pytest
import torch

import anylatent as al
from anylatent.core.nn.unet import UNet
from anylatent.core.testing.sampling import responses
from tests.core.toys import ExactBackbone, PointNet, alone, distance, gaussian, start
from tests.matrix import covering

SCHEDULES = ("vp", "cosine", "edm", "flow", "table", "shifted")
PREDICTIONS = ("data", "noise", "v", "score", "velocity", "edm")
DETERMINISTIC = {"euler": 0.9, "ddim": 0.9, "heun": 1.8, "dpmpp_2m": 1.8}
SOLVERS = (*DETERMINISTIC, "ddpm")
FINE = al.LatentSpec({"z": al.Field((3, 4))})


def meaningful(schedule, prediction):
    """At zero terminal SNR pure noise says nothing of x0 through these two targets."""
    return not (schedule.terminal_snr_is_zero and prediction in ("noise", "score"))


def preconditioned(schedule, prediction, exact, spec):
    """The exact denoiser as a backbone of one prediction, and `solve`'s view of it."""
    part = al.get("prediction", prediction)()
    backbone = ExactBackbone(exact, part, spec, data_std=0.5)
    denoiser = al.Preconditioned(backbone, schedule, part, data_std=0.5)

    def denoise(x, t):
        backbone.t = t
        return denoiser(x, t)

    return denoise


def endpoint(solver, denoise, schedule, x, steps, noise=None):
    times = al.get("grid", "log_snr")()(schedule, steps)
    return al.solve(al.get("solver", solver)(), denoise, schedule, x, times, noise)


@pytest.mark.parametrize(("name", "solver"), covering(SCHEDULES, DETERMINISTIC))
def test_order_of_convergence_for_every_schedule_and_prediction(name, solver):
    schedule = al.get("schedule", name)()
    blank = FINE.blank(4, dtype=torch.float64)
    exact, mean, std = gaussian(schedule, blank)
    x, _ = start(schedule, blank, mean)
    # the flow's end, derived here: (x_1 - α_1 μ)·s/√(α_1² s² + σ_1²) + μ
    alpha, sigma = schedule.alpha(1.0), schedule.sigma(1.0)
    gain = std["z"] / (alpha**2 * std["z"] ** 2 + sigma**2).sqrt()
    wanted = mean["z"] + (x["z"] - alpha * mean["z"]) * gain
    for prediction in PREDICTIONS:
        if not meaningful(schedule, prediction):
            continue
        denoise = preconditioned(schedule, prediction, exact, FINE)
        errors = []
        for steps in (80, 160):
            found = endpoint(solver, denoise, schedule, x, steps)["z"]
            errors.append(float(((found - wanted) / std["z"]).pow(2).mean().sqrt()))
        slope = math.log2(errors[0] / errors[1])
        assert slope >= DETERMINISTIC[solver], (prediction, errors)
        assert errors[1] < (0.04 if DETERMINISTIC[solver] < 1 else 0.003)


@pytest.mark.parametrize(("name", "solver"), covering(SCHEDULES, SOLVERS))
def test_every_prediction_gives_one_trajectory(name, solver):
    schedule = al.get("schedule", name)()
    blank = FINE.blank(4, dtype=torch.float64)
    exact, mean, _ = gaussian(schedule, blank)
    x, _ = start(schedule, blank, mean)
    times = al.get("grid", "log_snr")()(schedule, 12)

    def trajectory(denoise):
        states = []
        part = al.get("solver", solver)()
        al.solve(
            part, denoise, schedule, x, times, al.Noise.of(1, 4), lambda i, t, x: states.append(x)
        )
        return states

    wanted = trajectory(exact)
    for prediction in PREDICTIONS:
        if not meaningful(schedule, prediction):
            continue
        found = trajectory(preconditioned(schedule, prediction, exact, FINE))
        for a, b in zip(found, wanted, strict=True):
            assert distance(a, b) <= 1e-10 * max(1.0, float(b["z"].abs().max())), prediction


@pytest.mark.parametrize(("key", "solver"), covering(al.testing.SPECS, DETERMINISTIC))
def test_order_of_convergence_on_every_kind_of_latent(key, solver):
    """Padding and centring change nothing: same order, per degree of freedom and width."""
    spec, schedule = al.testing.SPECS[key], al.get("schedule", "flow")()
    blank = al.testing.example(spec)
    exact, mean, std = gaussian(schedule, blank)
    denoise = preconditioned(schedule, "velocity", exact, spec)
    x, _ = start(schedule, blank, mean)
    wanted = exact.flow(x, 1.0, 0.0)
    errors = []
    for steps in (80, 160):
        gap = endpoint(solver, denoise, schedule, x, steps) - wanted
        gap = gap.map(lambda a, b: a / b, std)
        errors.append(float((gap.norm() ** 2 / gap.dim).mean().sqrt()))
    assert math.log2(errors[0] / errors[1]) >= DETERMINISTIC[solver]
    assert errors[1] < (0.04 if DETERMINISTIC[solver] < 1 else 0.003)


@pytest.mark.parametrize("key", al.testing.SPECS)
@pytest.mark.parametrize("solver", ("heun", "ddpm"))
def test_every_prediction_gives_one_result_on_every_kind_of_latent(key, solver):
    spec, schedule = al.testing.SPECS[key], al.get("schedule", "vp")()
    exact, mean, _ = gaussian(schedule, al.testing.example(spec))
    x, _ = start(schedule, al.testing.example(spec), mean)
    wanted = endpoint(solver, exact, schedule, x, 12, al.Noise.of(1, 4))
    for prediction in PREDICTIONS:
        denoise = preconditioned(schedule, prediction, exact, spec)
        found = endpoint(solver, denoise, schedule, x, 12, al.Noise.of(1, 4))
        assert distance(found, wanted) <= 1e-10, prediction
        assert al.testing.in_subspace(found, 1e-12)


@pytest.mark.parametrize("solver", DETERMINISTIC)
def test_every_schedule_gives_one_result_on_one_log_snr_grid(solver):
    """In x/alpha against sigma/alpha all schedules are the same equation."""
    blank = FINE.blank(4, dtype=torch.float64)
    points = torch.linspace(-8, 12, 20, dtype=torch.float64)
    z = al.Noise.of(0, 4).like(blank)
    results = []
    for name in SCHEDULES:
        schedule = al.get("schedule", name)()
        if schedule.log_snr(1.0) > -8:  # Stable Diffusion's table starts later
            continue
        exact, mean, _ = gaussian(schedule, blank)
        times = schedule.time(points)
        alpha, sigma = schedule.coefficients(times[0])
        x = al.combine((alpha, mean), (sigma, z))
        last = al.solve(al.get("solver", solver)(), exact, schedule, x, times)
        results.append(last / schedule.alpha(times[-1]))
    assert len(results) >= 4
    for other in results[1:]:
        assert distance(other, results[0]) < 1e-9


def ddpm_std(schedule, times, width):
    """The recursion of the ancestral sampler on N(μ, s²): x_s = k·(x_t - α_t μ) + α_s μ + up·z."""
    variance = float(schedule.alpha(1.0)) ** 2 * width**2 + float(schedule.sigma(1.0)) ** 2
    for t, s in itertools.pairwise(times.tolist()):
        a_t, b_t, a_s, b_s = (float(f(u)) for u in (t, s) for f in (schedule.alpha, schedule.sigma))
        gain = a_t * width**2 / (a_t**2 * width**2 + b_t**2)  # of x0 on x_t
        # q(x_s | x_t, x0): the posterior of a Gaussian Markov chain, by Bayes
        between = b_t**2 - (a_t / a_s) ** 2 * b_s**2  # var(x_t | x_s)
        on_x = (a_t / a_s) * b_s**2 / b_t**2
        on_x0 = a_s * between / b_t**2
        variance = (on_x + on_x0 * gain) ** 2 * variance + between * b_s**2 / b_t**2
    return math.sqrt(variance)


@pytest.mark.parametrize("steps", (1, 2, 5, 20))
@pytest.mark.parametrize("name", ("vp", "edm", "flow", "table"))
def test_ddpm_has_the_variance_of_the_exact_recursion(name, steps):
    schedule, width = al.get("schedule", name)(), 0.4
    times = al.get("grid", "log_snr")()(schedule, steps)
    wanted = ddpm_std(schedule, times, width)
    # exactly, by the response to each draw
    *_, (t, mean, std) = responses(al.get("solver", "ddpm")(), schedule, steps, 0.7, width, 40)
    assert t == 0 and mean == pytest.approx(0.7, abs=1e-10) and std == pytest.approx(wanted, 1e-9)
    # and as users see it, from 4 × 4096 draws, to 3 standard errors
    spec = al.LatentSpec({"z": al.Field((4096,))})
    blank = spec.blank(4, dtype=torch.float64)
    exact = al.testing.GaussianDenoiser(schedule, 0.7, width)
    x, noise = start(schedule, blank, blank.map(lambda z: z + 0.7))
    # the start has variance σ(1)², the recursion starts from that of x_1: make them equal
    x = x + float(schedule.alpha(1.0)) * width * al.Noise.of(5, 4).like(blank)
    found = endpoint("ddpm", exact, schedule, x, steps, noise)["z"]
    count = found.numel()
    assert abs(float(found.var()) - wanted**2) <= 3 * wanted**2 * math.sqrt(2 / count) + 1e-12
    assert abs(float(found.mean()) - 0.7) <= 3 * wanted / math.sqrt(count) + 1e-12


WIDTHS = (0.05, 0.2, 0.5, 1.0, 3.0)


def ddim_std(schedule, times, width, eta):
    """The recursion of x_s = α_s x0 + √(σ_s² - up²)·noise + up·z, x0 and noise linear in x_t."""
    variance = float(schedule.alpha(1.0)) ** 2 * width**2 + float(schedule.sigma(1.0)) ** 2
    for t, s in itertools.pairwise(times.tolist()):
        a_t, b_t, a_s, b_s = (float(f(u)) for u in (t, s) for f in (schedule.alpha, schedule.sigma))
        up = eta * b_s * math.sqrt(max(0.0, 1 - (b_s * a_t / (a_s * b_t)) ** 2))
        gain = a_t * width**2 / (a_t**2 * width**2 + b_t**2)
        factor = a_s * gain + math.sqrt(b_s**2 - up**2) * (1 - a_t * gain) / b_t
        variance = factor**2 * variance + up**2
    return math.sqrt(variance)


def churned_std(schedule, times, width, churn):
    """Karras et al.'s algorithm 2 for alpha = 1: noise is raised, then Heun's two slopes."""
    sigmas = [float(schedule.sigma(t)) for t in times]
    variance, raising = width**2 + sigmas[0] ** 2, min(churn / (len(sigmas) - 1), math.sqrt(2) - 1)
    for now, then in itertools.pairwise(sigmas):
        high = now * (1 + raising) if now * (1 + raising) < sigmas[0] else now
        variance += high**2 - now**2
        first = high / (width**2 + high**2)  # the slope (x - x0)/σ over x
        euler = 1 + (then - high) * first
        if then == 0:
            variance *= euler**2
            continue
        second = then / (width**2 + then**2) * euler
        variance *= (1 + 0.5 * (then - high) * (first + second)) ** 2
    return math.sqrt(variance)


@pytest.mark.parametrize("steps", (10, 20, 100))
@pytest.mark.parametrize("width", WIDTHS)
def test_the_deviation_of_samples_is_exactly_that_of_the_recursion(width, steps):
    schedule = al.get("schedule", "vp")()
    times = al.get("grid", "log_snr")()(schedule, steps)
    for name, settings, eta in (
        ("ddim", {"eta": 0.4}, 0.4),
        ("ddpm", {}, 1.0),
        ("euler_ancestral", {}, 1.0),
    ):
        solver = al.get("solver", name)(**settings)
        found = responses(solver, schedule, steps, 0.0, width, steps + 1)[-1][2]
        assert found == pytest.approx(ddim_std(schedule, times, width, eta), rel=1e-9), name
    schedule = al.get("schedule", "edm")()
    times = al.get("grid", "log_snr")()(schedule, steps)
    found = responses(al.get("solver", "heun")(churn=20), schedule, steps, 0.0, width, 2 * steps)
    assert found[-1][2] == pytest.approx(churned_std(schedule, times, width, 20), rel=1e-9)


@pytest.mark.parametrize("eta", (0.3, 1.0))
def test_ddim_reaches_the_data_law_as_the_grid_is_refined(eta):
    schedule = al.get("schedule", "vp")()
    solver = al.get("solver", "ddim")(eta=eta)
    gaps = [
        abs(responses(solver, schedule, n, 0.0, 0.5, n + 1)[-1][2] / 0.5 - 1) for n in (40, 160)
    ]
    assert gaps[1] < 0.3 * gaps[0] and gaps[1] < 0.05


@pytest.mark.parametrize("churn", (5.0, 40.0, 1e9))
def test_churn_keeps_the_marginals_and_converges(churn):
    schedule = al.get("schedule", "edm")()
    solver = al.get("solver", "heun")(churn=churn)
    gaps = [
        abs(responses(solver, schedule, n, 0.0, 0.5, n + 1)[-1][2] / 0.5 - 1) for n in (80, 160)
    ]
    assert gaps[1] < 0.6 * gaps[0] and gaps[1] < 0.3
    drawn = responses(solver, schedule, 20, 0.0, 0.0, 21)
    for t, _, std in drawn:
        assert std == pytest.approx(float(schedule.sigma(t)), abs=1e-9)


def test_churn_is_silent_outside_its_interval():
    schedule = al.get("schedule", "edm")()
    quiet = al.get("solver", "heun")(churn=40.0, churn_min=1e3, churn_max=1e4)
    plain = al.get("solver", "heun")()
    blank = FINE.blank(2, dtype=torch.float64)
    exact, _, _ = gaussian(schedule, blank)
    times = al.get("grid", "karras")()(schedule, 10)
    x, noise = start(schedule, blank)
    one = al.solve(quiet, exact, schedule, x, times, noise)
    assert distance(one, al.solve(plain, exact, schedule, x, times)) < 1e-12


@pytest.mark.parametrize(("key", "solver"), covering(al.testing.SPECS, SOLVERS))
def test_nothing_leaves_the_subspace(key, solver):
    """Every state and every x0 on the way, to 1e-12 in float64."""
    for name, grid in itertools.product(SCHEDULES, ("log_snr", "karras", "uniform")):
        schedule = al.get("schedule", name)()
        blank = al.testing.example(al.testing.SPECS[key])
        exact = al.testing.GaussianDenoiser(schedule, 0.5, 0.3)
        times = al.get("grid", grid)()(schedule, 6)
        x, noise = start(schedule, blank)

        def check(i, t, x):
            assert al.testing.in_subspace(x, 1e-12)

        check(0, 1.0, x)
        al.solve(al.get("solver", solver)(), exact, schedule, x, times, noise, check)


def unet():
    torch.manual_seed(0)
    net = UNet(channels=32, embedding=64, heads=2)
    for parameter in net.parameters():  # away from the zeros of the initialisation
        torch.nn.init.normal_(parameter, std=0.05)
    return net.eval(), al.testing.example(net.spec, 8, dtype=torch.float32)


def points():
    torch.manual_seed(0)
    spec = al.testing.SPECS["molecule"]
    return PointNet(spec).eval(), al.testing.example(spec, 8, dtype=torch.float32)


@pytest.mark.parametrize("build", (unet, points))
@pytest.mark.parametrize("solver", SOLVERS)
@torch.no_grad()
def test_a_sample_of_eight_equals_the_sample_alone(build, solver):
    backbone, blank = build()
    schedule = al.get("schedule", "vp")()
    denoiser = al.Preconditioned(backbone, schedule, al.get("prediction", "v")())
    times = al.get("grid", "log_snr")()(schedule, 10)
    seeds = [11, 5, 7, 100, 5 + 2**32, 2**40, 3, 0]
    part = al.get("solver", solver)()

    def draw(blank, seeds):
        noise = al.Noise(seeds)
        first = noise.like(blank)
        x = schedule.sigma(1.0) * first
        return first, al.solve(part, denoiser, schedule, x, times, noise)

    first, joint = draw(blank, seeds)
    for i in range(8):
        alone_first, alone_x = draw(alone(blank, i), seeds[i : i + 1])
        for name, z in alone_first.parts.items():
            same = torch.equal(z[0], alone(first, i)[name][0])
            assert same or blank.spec.fields[name].centred  # bit for bit; see test_noise
        assert distance(alone_first, alone(first, i)) < 1e-6
        assert distance(alone_x, alone(joint, i)) <= 1e-5


def test_heun_falls_back_to_euler_where_its_second_stage_has_no_meaning():
    """One step from alpha = 0 to sigma = 0 is the denoiser's x0 itself, one evaluation."""
    schedule, blank, calls = al.get("schedule", "flow")(), FINE.blank(2), []
    exact = al.testing.GaussianDenoiser(schedule, 0.5, 0.3)

    def denoise(x, t):
        calls.append(float(t))
        return exact(x, t)

    x, _ = start(schedule, blank)
    times = torch.tensor([1.0, 0.0], dtype=torch.float64)
    out = al.solve(al.get("solver", "heun")(), denoise, schedule, x, times)
    assert calls == [1.0]
    assert distance(out, exact(x, 1.0)) < 1e-6


def test_solve_refuses_times_that_do_not_decrease():
    schedule, blank = al.get("schedule", "vp")(), FINE.blank(1)
    exact = al.testing.GaussianDenoiser(schedule, 0.0, 1.0)
    for times in ([1.0], [1.0, 1.0, 0.0], [0.0, 1.0]):
        with pytest.raises(ValueError, match="decrease strictly"):
            al.solve(
                al.get("solver", "euler")(), exact, schedule, blank, torch.tensor(times).double()
            )


def test_solvers_say_which_settings_are_allowed():
    with pytest.raises(ValueError, match="eta"):
        al.get("solver", "ddim")(eta=1.5)
    with pytest.raises(ValueError, match="churn"):
        al.get("solver", "heun")(churn=-1.0)


@pytest.mark.parametrize(("steps", "peer"), ((5, 0.524), (10, 0.360), (20, 0.230), (80, 0.0021)))
def test_dpmpp_on_the_problem_that_peers_were_measured_on(steps, peer):
    """ground-truth.md's five widths: below diffusers' default grid, below all its grids at 80."""
    widths = torch.tensor([0.1, 0.3, 0.5, 1.0, 2.0], dtype=torch.float64)
    schedule = al.get("schedule", "vp")()
    blank = al.LatentSpec({"z": al.Field((5,))}).blank(64, dtype=torch.float64)
    std = blank.map(lambda x: widths.expand_as(x).clone())
    exact = al.testing.GaussianDenoiser(schedule, 0.0, std)
    x, _ = start(schedule, blank)
    wanted = exact.flow(x, 1.0, 0.0)["z"]
    found = endpoint("dpmpp_2m", exact, schedule, x, steps)["z"]
    assert float(((found - wanted) / widths).pow(2).mean().sqrt()) < peer
