"""Faults that peers really had, one test each (numbers: issues of huggingface/diffusers)."""

import itertools

import pytest
import torch

import anylatent as al
from anylatent.core.latents.noise import Noise
from anylatent.core.solvers import Adaptive
from tests.core.toys import PointNet, alone, distance, gaussian, start
from tests.matrix import covering

SCHEDULES = ("vp", "cosine", "edm", "flow", "table", "shifted")
SOLVERS = al.names("solver")
FIXED = [name for name in SOLVERS if not isinstance(al.get("solver", name)(), Adaptive)]
CAUTIOUS = ("euler", "ddim", "gddim", "ddpm", "euler_ancestral", "dpmpp_2m", "plms", "paradigms")
GRIDS = ("log_snr", "soft", "uniform", "karras")
SPEC = al.LatentSpec({"z": al.Field((4,))})


def solve(solver, schedule, steps, dtype=torch.float64, grid="log_snr", record=None, seeds=(0, 1)):
    blank = SPEC.blank(len(seeds), dtype=dtype)
    exact = al.testing.GaussianDenoiser(schedule, 0.5, 0.3)
    noise = al.Noise(list(seeds))
    x = schedule.sigma(1.0) * noise.like(blank)
    times = al.get("grid", grid)()(schedule, steps)
    return al.solve(solver, exact, schedule, x, times, noise, record), times


@pytest.mark.parametrize(("solver", "name"), covering(SOLVERS, SCHEDULES))
def test_finite_for_every_schedule_and_few_steps_14213_9104(name, solver):
    """Cosine with ancestral steps gave NaN, PNDM failed below 4 steps, log 0 at third order."""
    schedule = al.get("schedule", name)()
    counts = (1, 2, 3, 4, 6, 10) if solver in FIXED else (1, 4)
    for steps, grid in itertools.product(counts, GRIDS):
        x, _ = solve(al.get("solver", solver)(), schedule, steps, torch.float32, grid)
        assert bool(x["z"].isfinite().all()), (steps, grid)
        if solver in CAUTIOUS:  # others extrapolate, or take two large steps from rho = 148
            assert float(x["z"].abs().max()) < 10, (steps, grid)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_state_after_step_i_is_at_grid_point_i_plus_1_and_the_last_at_0_12633_9261(solver):
    """Point-mass data: noise-free solvers are exact, x_s = alpha·c + sigma·noise at *its* s."""
    schedule, seen = al.get("schedule", "vp")(), []
    blank = SPEC.blank(1, dtype=torch.float64)
    exact = al.testing.GaussianDenoiser(schedule, 0.5, 0.0)
    z = al.Noise([3]).like(blank)
    alpha, sigma = schedule.coefficients(torch.tensor(1.0).double())
    x = al.combine((sigma, z), (alpha, blank.map(lambda x: x + 0.5)))
    times = al.get("grid", "log_snr")()(schedule, 9)
    noise = al.Noise([4])
    part = al.get("solver", solver)()
    al.solve(part, exact, schedule, x, times, noise, lambda i, t, x: seen.append((i, t, x)))
    assert [i for i, _, _ in seen] == list(range(1, 10))
    assert [float(t) for _, t, _ in seen] == times[1:].tolist() and seen[-1][1] == 0
    if not part.stochastic and solver != "adams":  # which is exact for N(0, 1) instead
        for _, t, x in seen:
            wanted = float(schedule.alpha(t)) * 0.5 + float(schedule.sigma(t)) * z["z"]
            near = max(1e-11, 10 * part.tolerance)
            assert torch.allclose(x["z"], wanted, atol=near)


@pytest.mark.parametrize("grid", GRIDS)
def test_grids_strictly_decrease_12771_6232(grid):
    for name, steps in itertools.product(SCHEDULES, (1, 2, 3, 10, 50, 1000)):
        times = al.get("grid", grid)()(al.get("schedule", name)(), steps)
        assert len(times) == steps + 1 and bool((times.diff() < 0).all())


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("solver", FIXED)
def test_the_first_call_of_the_network_is_at_t_1_13887(solver, grid):
    schedule, calls = al.get("schedule", "table")(), []

    def denoise(x, t):
        calls.append(float(t))
        return x

    times = al.get("grid", grid)()(schedule, 4)
    al.solve(al.get("solver", solver)(), denoise, schedule, SPEC.blank(1), times, al.Noise([0]))
    assert calls[0] == 1 and 0 not in calls


def test_a_shift_is_applied_once_13243():
    base, shifted = al.get("schedule", "flow")(), al.get("schedule", "shifted")(shift=3.0)
    drop = base.log_snr(0.4) - shifted.log_snr(0.4)
    assert float(drop) == pytest.approx(2 * torch.tensor(3.0).double().log().item(), rel=1e-12)
    # the grid in log-SNR is the same one: shifting it as well would be twice
    a, b = (s.log_snr(al.get("grid", "log_snr")()(s, 12)) for s in (base, shifted))
    assert torch.allclose(a[1:-1], b[1:-1], atol=1e-8)


@pytest.mark.parametrize("name", ("cosine", "flow", "shifted"))
@pytest.mark.parametrize("kind", ("data", "v", "velocity", "edm"))
@pytest.mark.parametrize("weighting", ("simple", "elbo", "edm", "min_snr", "sigmoid"))
def test_zero_terminal_snr_weights_and_targets_are_finite_at_both_ends_3851(name, kind, weighting):
    schedule, prediction = al.get("schedule", name)(), al.get("prediction", kind)()
    assert schedule.terminal_snr_is_zero
    spec = al.testing.SPECS["text"]
    denoiser = al.Preconditioned(PointNet(spec), schedule, prediction)
    law = al.get("times", "uniform")()
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert bool(al.get("weighting", weighting)()(denoiser, ends, law).isfinite().all())

    class Ends(type(law)):
        def sample(self, noise, schedule):
            return torch.arange(noise.batch, dtype=torch.float64) % 2

    x0 = al.Noise.of(0, 4).like(al.testing.example(spec, dtype=torch.float32))
    part = al.get("objective", "denoising")(Ends(), al.get("weighting", weighting)())
    if kind != "velocity" or name == "flow" or name == "shifted":  # cosine's rate is ∞ at t = 0
        assert bool(part(denoiser, x0, None, al.Noise.of(1, 4)).isfinite().all())


@pytest.mark.parametrize("kind", ("noise", "score"))
def test_noise_prediction_at_zero_terminal_snr_is_an_error_at_construction_5969(kind):
    net, prediction = PointNet(al.testing.SPECS["text"]), al.get("prediction", kind)()
    zero = al.get("schedule", "table")(zero_terminal_snr=True)
    for schedule in (zero, al.get("schedule", "cosine")(), al.get("schedule", "flow")()):
        with pytest.raises(ValueError, match="prediction=v"):
            al.Preconditioned(net, schedule, prediction)


GUIDES = (
    None,
    {"name": "classifier_free", "scale": 3.0},
    {"name": "classifier_free", "scale": 3.0, "rescale": 0.7},
    {"name": "projected", "scale": 3.0},
)


@pytest.mark.parametrize(("solver", "guide"), covering(SOLVERS, range(len(GUIDES))))
def test_a_sample_does_not_depend_on_its_neighbours_612_6222(solver, guide):
    from anylatent.core.testing.denoisers import ConditionalGaussian

    schedule = al.get("schedule", "vp")()
    denoiser, guidance = ConditionalGaussian(schedule), GUIDES[guide]
    if guidance is not None:
        settings = {key: value for key, value in guidance.items() if key != "name"}
        denoiser = al.get("guidance", guidance["name"])(denoiser, **settings)
    times = al.get("grid", "log_snr")()(schedule, 6)
    means = torch.tensor([1.0, -2.0, 0.3, 0.0])
    blank = al.testing.example(al.testing.SPECS["molecule"], dtype=torch.float32)

    def draw(blank, rows):
        cond, noise = al.Condition({"mean": means[rows]}), al.Noise.of(5, rows)
        x = schedule.sigma(1.0) * noise.like(blank)
        part = al.get("solver", solver)()
        return al.solve(part, denoiser.bind(cond), schedule, x, times, noise)

    if solver not in FIXED and denoiser.fresh() is not denoiser:
        with pytest.raises(ValueError, match="choose a solver of fixed steps"):
            draw(blank, [0, 1, 2, 3])
        return
    joint = draw(blank, [0, 1, 2, 3])
    for i in range(4):
        assert distance(draw(alone(blank, i), [i]), alone(joint, i)) < 1e-5


@pytest.mark.parametrize("solver", FIXED)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16))
def test_the_precision_is_that_of_the_sample(solver, dtype):
    """UniPC's linear solve failed in float64."""
    x, _ = solve(al.get("solver", solver)(), al.get("schedule", "vp")(), 5, dtype)
    assert x.dtype == dtype


@pytest.mark.parametrize(
    "solver", (al.get("solver", "ddpm")(), al.get("solver", "heun")(churn=9.0))
)
def test_seeds_reach_every_stochastic_part_13678(solver):
    schedule = al.get("schedule", "vp")()
    draws = []
    for seeds, junk in (((1, 2), 0), ((1, 2), 99), ((1, 3), 0)):
        torch.manual_seed(junk)  # the global generator has no say
        draws.append(solve(solver, schedule, 6, seeds=seeds)[0]["z"])
    assert torch.equal(draws[0], draws[1]) and torch.equal(draws[0][0], draws[2][0])
    assert not torch.allclose(draws[0][1], draws[2][1])
    # and the noise of the steps matters, not only that of the start
    blank, exact = SPEC.blank(1), al.testing.GaussianDenoiser(schedule, 0.0, 1.0)
    x = schedule.sigma(1.0) * al.Noise([0]).like(blank)
    times = al.get("grid", "log_snr")()(schedule, 6)
    ends = [al.solve(solver, exact, schedule, x, times, al.Noise([s]))["z"] for s in (1, 2)]
    assert not torch.allclose(*ends)


def test_heuns_second_stage_uses_the_next_time_not_the_current_1512():
    schedule, calls = al.get("schedule", "edm")(), []
    exact = al.testing.GaussianDenoiser(schedule, 0.5, 0.3)

    def denoise(x, t):
        calls.append((float(t), x))
        return exact(x, t)

    times = al.get("grid", "log_snr")()(schedule, 4)
    blank = SPEC.blank(1, dtype=torch.float64)
    x, _ = start(schedule, blank)
    al.solve(al.get("solver", "heun")(), denoise, schedule, x, times)
    t = times.tolist()
    assert [c for c, _ in calls] == [t[0], t[1], t[1], t[2], t[2], t[3], t[3]]
    # and there it is given Euler's prediction for that time
    euler = al.solve(al.get("solver", "euler")(), exact, schedule, x, times[:2])
    assert distance(calls[1][1], euler) < 1e-12


def test_heun_by_hand_on_edm():
    """One step of Karras et al.'s algorithm 1, dx/dσ = (x - D)/σ, alpha = 1."""
    schedule = al.get("schedule", "edm")()
    exact, _, _ = gaussian(schedule, SPEC.blank(2))
    x, _ = start(schedule, SPEC.blank(2, dtype=torch.float64))
    times = torch.tensor([0.8, 0.6], dtype=torch.float64)
    a, b = (float(schedule.sigma(t)) for t in times)
    slope = (x - exact(x, times[0])) / a
    euler = x + (b - a) * slope
    wanted = x + (0.5 * (b - a)) * (slope + (euler - exact(euler, times[1])) / b)
    found = al.solve(al.get("solver", "heun")(), exact, schedule, x, times)
    assert distance(found, wanted) < 1e-10


@pytest.mark.parametrize("name", SCHEDULES)
def test_adding_noise_is_alpha_x0_plus_sigma_noise_whatever_the_solver_6078(name):
    """The objective is the only place that adds noise; it sees no solver."""
    schedule, seen = al.get("schedule", name)(), []

    class Spy(PointNet):
        def forward(self, x, c_noise, cond=None):
            seen.append(x)
            return super().forward(x, c_noise, cond)

    spec = al.testing.SPECS["molecule"]
    denoiser = al.Preconditioned(Spy(spec).double(), schedule, al.get("prediction", "v")())
    x0 = al.Noise.of(0, 4).like(al.testing.example(spec))
    part = al.get("objective", "denoising")()
    part(denoiser, x0, None, al.Noise.of(1, 4))
    noise = al.Noise.of(1, 4)
    t = part.times.sample(noise, schedule)
    alpha, sigma = schedule.coefficients(t)
    c_in = (alpha**2 + sigma**2).rsqrt()
    wanted = c_in * (alpha * x0 + sigma * noise.like(x0))
    assert distance(seen[0], wanted) < 1e-12


def test_min_snr_has_no_zero_over_zero_and_padding_no_part_in_the_loss_12294_14699():
    spec = al.testing.SPECS["molecule"]
    schedule = al.get("schedule", "cosine")()
    denoiser = al.Preconditioned(PointNet(spec), schedule, al.get("prediction", "v")())
    part = al.get("objective", "denoising")(weighting=al.get("weighting", "min_snr")())
    ends = torch.tensor([0.0, 1e-9, 1 - 1e-9, 1.0], dtype=torch.float64)
    assert bool(part.weighting(denoiser, ends, part.times).isfinite().all())
    x0 = al.Noise.of(0, 4).like(al.testing.example(spec, dtype=torch.float32, padded=30))
    joint = part(denoiser, x0, None, al.Noise.of(1, 4))
    own = [part(denoiser, alone(x0, i), None, al.Noise.of(1, [i])) for i in range(4)]
    assert torch.allclose(joint, torch.cat(own), rtol=1e-4)


def test_a_batch_may_be_split_without_changing_its_noise():
    blank = SPEC.blank(6)
    whole = Noise.of(0, 6).like(blank)["z"]
    parts = [Noise.of(0, range(k, k + 2)).like(SPEC.blank(2))["z"] for k in (0, 2, 4)]
    assert torch.equal(whole, torch.cat(parts))


def test_the_latent_is_no_copy_of_the_input_geoldm_6_lion_82():
    """Its rate and effective dimensions are reported: of a copy they are all, of noise none."""
    from anylatent.core.reports.latents import effective_dimensions

    spec = al.LatentSpec({"z": al.Field((6,))})
    copied = al.Noise.of(0, 400).like(spec.blank(400))
    collapsed = copied.map(lambda z: torch.cat([z[:, :1], 0 * z[:, 1:]], 1))
    found = [effective_dimensions([z])["effective_dimensions"] for z in (copied, collapsed)]
    assert found[0] > 5.5 and found[1] == pytest.approx(1, abs=1e-3)
