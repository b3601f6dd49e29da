"""Solutions that begin in the middle: the law that they end with, and the order that they keep."""

import itertools
import math

import pytest
import torch

import anylatent as al
from anylatent.core.denoisers import flatten as flat
from anylatent.core.solvers.adaptive import Adaptive
from anylatent.core.testing.examples import Impulses
from tests.core.toys import dense, sizes, spiked, unflat

DETERMINISTIC = [n for n in al.names("solver") if not al.get("solver", n)().stochastic]
STD, T = 0.4, 0.5
WIDE = al.get("grid", "log_snr")(-14.0, 24.0)


def source(blank):
    """What is edited: as unlikely under the model as one likes."""
    return 1.5 * al.Noise.of(3, blank.batch).like(blank)


def test_a_start_is_x_or_data_with_noise():
    schedule, blank = al.get("schedule", "vp")(), sizes(al.testing.SPECS["text"], 4)
    x0 = source(blank)
    each = torch.tensor([0.2, 0.4, 0.6, 1.0]).double()
    for t in (0.3, each, each[:, None].expand(4, 5)):
        found = al.Start(t, x0=x0).state(schedule, al.Noise.of(1, 4))
        drawn = al.Noise.of(1, 4).like(blank)
        wanted = al.combine((schedule.alpha(t), x0), (schedule.sigma(t), drawn))
        assert torch.equal(found["z"], wanted["z"])
        assert al.Start(t, x=x0).state(schedule, al.Noise.of(1, 4)) is x0
    grid = al.get("grid", "soft")()
    times = al.Start(each, x=x0).times(grid, schedule, 8)
    assert torch.equal(times, grid.below(schedule, each, 8)) and times.shape == (9, 4)
    for wrong in ({}, {"x": x0, "x0": x0}):
        with pytest.raises(ValueError, match="one of the two"):
            al.Start(0.3, **wrong)


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize(("key", "schedule"), (("molecule", "vp"), ("text", "flow")))
def test_sdedit_on_an_exact_gaussian_ends_with_the_right_law_at_the_solver_s_order(
    key, schedule, name
):
    """x_t = α·x_src + σ·ε ends at m + R·(α·(x_src - m) + σ·ε), R = C^½·(α²·C + σ²)^-½: mean and
    covariance over ε, from the exact answer to each unit of it."""
    schedule, spec = al.get("schedule", schedule)(), al.testing.SPECS[key]
    one = sizes(spec, 1)
    exact, spikes = spiked(schedule, one)
    covariance, onto = (m[0] for m in dense(exact, spikes, STD, one))
    values, vectors = torch.linalg.eigh(onto)
    basis = vectors[:, values > 0.5].T  # orthonormal, on the subspace
    alpha, sigma = (float(c) for c in schedule.coefficients(torch.tensor(T).double()))
    rows = torch.cat([torch.zeros(1, len(onto)).double(), basis])

    class Units(al.Noise):
        def like(self, latent):
            super().like(latent)
            return unflat(rows, latent)

    start = al.Start(T, x0=source(one).select([0] * len(rows)))
    solver = al.get("solver", name)()
    w, v = torch.linalg.eigh(covariance)
    ratio = v @ torch.diag((w.clamp(min=0) / (alpha**2 * w + sigma**2)).sqrt()) @ v.T
    mean = flat(exact.centre(one))[0]
    wanted = mean + alpha * ratio @ (flat(source(one))[0] - mean)
    spread = sigma**2 * ratio @ onto @ ratio.T
    errors = []
    for steps in (4,) if isinstance(solver, Adaptive) else (40, 80, 160):
        noise = Units.of(0, len(rows))
        x, times = start.state(schedule, noise), start.times(WIDE, schedule, steps)
        ended = flat(al.solve(solver, exact.bind(None), schedule, x, times))
        push = (ended[1:] - ended[0]).T
        gaps = (
            (ended[0] - wanted).square().mean(),
            (push @ push.T - spread).square().sum() / len(rows),
        )
        errors.append(math.sqrt(float(gaps[0]) / STD**2 + float(gaps[1]) / STD**4))
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    reached = slopes and max(slopes) > solver.order - 0.25
    assert reached or errors[-1] < 10 * solver.tolerance, (errors, slopes)


@pytest.mark.parametrize("name", ("ddpm", "euler_ancestral", "dpmpp_2m_sde"))
def test_the_sde_from_the_middle_has_its_own_law(name):
    """Mean m + α·g·(x_src - m) and variance g²·σ² + s²·σ²/(α²·s² + σ²), g = α·s²/(α²·s² + σ²): x0
    is drawn from the posterior of x_t."""
    schedule, std, mean, value = al.get("schedule", "vp")(), 0.5, 0.3, 1.7
    spec, draws = al.LatentSpec({"z": al.Field((1,))}), 900
    exact = al.testing.GaussianDenoiser(schedule, mean, std)
    impulses = Impulses(draws)
    blank = spec.blank(draws, dtype=torch.float64)
    start = al.Start(T, x0=blank.map(lambda z: z + value))
    x, times = start.state(schedule, impulses), start.times(WIDE, schedule, 400)
    z = al.solve(al.get("solver", name)(), exact, schedule, x, times, impulses)["z"]
    middle = float(z[-1])  # the last sample receives no noise
    assert impulses.drawn < draws
    alpha, sigma = (float(c) for c in schedule.coefficients(torch.tensor(T).double()))
    total = alpha**2 * std**2 + sigma**2
    gain = alpha * std**2 / total
    assert middle == pytest.approx(mean + alpha * gain * (value - mean), abs=0.01)
    variance = float((z - middle).square().sum())
    assert variance == pytest.approx(gain**2 * sigma**2 + std**2 * sigma**2 / total, rel=0.04)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_start_near_data_is_the_identity_and_samples_may_start_apart(name):
    schedule, blank = al.get("schedule", "vp")(), sizes(al.testing.SPECS["text"], 3)
    exact, _ = spiked(schedule, blank)
    x0, solver = source(blank), al.get("solver", name)()
    grid = al.get("grid", "log_snr")()
    first = schedule.time(13.0)
    t = torch.stack([first, torch.tensor(0.3).double(), torch.tensor(0.7).double()])
    start = al.Start(t, x0=x0)
    x = start.state(schedule, al.Noise.of(0, 3))
    ended = al.solve(solver, exact.bind(None), schedule, x, start.times(grid, schedule, 12))
    near = flat(ended - x0)[0].abs().max()
    assert float(near) < 0.02 and float(flat(ended - x0)[2].abs().max()) > 0.3
    for i in range(3):
        row = torch.tensor([i])
        own = al.Start(float(t[i]), x=x.select(row))
        alone = al.solve(
            solver,
            exact.select(row).bind(None),
            schedule,
            own.state(schedule, al.Noise.of(0, 1)),
            own.times(grid, schedule, 12),
        )
        gap = flat(alone - ended.select(row)).abs().max()
        assert float(gap) < max(1e-9, solver.tolerance)


def test_a_generator_begins_where_its_sampler_says():
    """Of a diffusion model with an exact denoiser: as `solve` from that state by those times."""
    from types import SimpleNamespace

    spec, schedule = al.LatentSpec({"z": al.Field((3,))}), al.get("schedule", "vp")()
    exact = al.testing.GaussianDenoiser(schedule, 0.3, STD)
    exact.backbone = SimpleNamespace(spec=spec)
    model = al.Diffusion(exact, al.get("objective", "denoising")())
    x0 = source(spec.blank(4, dtype=torch.float64))
    start = al.Start(T, x0=x0)
    sampler = al.Sampler(al.get("solver", "heun")(), WIDE, 7, start=start)
    found = model.sample(x0.zeros(), None, sampler, al.Noise.of(1, 4))
    state = start.state(schedule, al.Noise.of(1, 4))
    wanted = al.solve(sampler.solver, exact, schedule, state, WIDE.below(schedule, T, 7))
    assert torch.equal(found["z"], wanted["z"])
