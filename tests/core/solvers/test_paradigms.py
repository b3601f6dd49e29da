"""ParaDiGMS: the sequential solution by fewer calls; and what it asks of denoisers."""

import functools

import pytest
import torch

import anylatent as al
from anylatent.core.denoisers.base import Recalling, as_denoise
from anylatent.core.denoisers.counted import Counted
from anylatent.core.guidance import ClassifierFree
from anylatent.core.inverse.completion import Completion
from anylatent.core.solvers import ParaDiGMS
from anylatent.core.testing.denoisers import ConditionalGaussian
from tests.core.toys import PointNet, alone, distance, gaussian, start

SPEC = al.LatentSpec({"z": al.Field((6,))})
BASES = (
    ("euler", {}),
    ("ddim", {"eta": 0.5}),
    ("ddpm", {}),
    ("ddpm", {"variance": "large"}),
    ("heun", {}),
    ("dpm_solver", {"order": 3}),
    ("dpmpp_2s", {}),
)
STEPS = 60


def mixture(schedule, spec=SPEC):
    draw = al.Noise.of(7, 1)
    means = [draw.like(spec.blank(1, dtype=torch.float64)) for _ in range(4)]
    return al.testing.MixtureDenoiser(schedule, means, 0.3)


def both(base, tolerance, window, schedule, denoise, blank, callback=None):
    times = al.get("grid", "log_snr")()(schedule, STEPS)
    ends, counts = [], []
    for solver in (base, ParaDiGMS(base, window=window, tolerance=tolerance)):
        x, noise = start(schedule, blank)
        counted = Counted(denoise, blank.batch)
        told = callback if solver is not base else None
        ends.append(al.solve(solver, counted, schedule, x, times, noise, told))
        counts.append(counted)
    return ends, counts


@pytest.mark.parametrize(("name", "settings"), BASES)
@pytest.mark.parametrize("schedule", ("vp", "flow", "edm"))
def test_without_tolerance_it_is_the_sequential_solution(schedule, name, settings):
    schedule = al.get("schedule", schedule)()
    base = al.get("solver", name)(**settings)
    blank = SPEC.blank(3, dtype=torch.float64)
    (wanted, found), (one, many) = both(base, 0.0, 20, schedule, mixture(schedule), blank)
    assert distance(found, wanted) < 1e-11
    assert many.calls <= one.calls


@pytest.mark.parametrize(("name", "settings"), BASES)
def test_with_it_the_calls_one_after_the_other_are_few(name, settings):
    schedule = al.get("schedule", "vp")()
    base = al.get("solver", name)(**settings)
    blank = SPEC.blank(3, dtype=torch.float64)
    for tolerance in (1e-2, 1e-3, 1e-4):
        (wanted, found), (one, many) = both(
            base, tolerance, STEPS, schedule, mixture(schedule), blank
        )
        assert float(found.mse(wanted).sqrt().max()) < 10 * tolerance
        assert many.calls < {1e-2: 0.3, 1e-3: 0.4, 1e-4: 0.6}[tolerance] * one.calls
        assert int(many.evaluations.min()) > STEPS  # at the price of more in all


@pytest.mark.parametrize("window", (1, 2, 7, 1000))
def test_every_state_is_told_once_and_in_order(window):
    schedule, blank = al.get("schedule", "flow")(), SPEC.blank(3, dtype=torch.float64)
    base, states = al.get("solver", "ddpm")(), []
    times = al.get("grid", "log_snr")()(schedule, 20)
    for solver in (base, ParaDiGMS(base, window=window, tolerance=0.0)):
        x, noise = start(schedule, blank)
        states.append([])
        note = lambda *seen: states[-1].append(seen)  # noqa: E731
        al.solve(solver, mixture(schedule), schedule, x, times, noise, note)
    assert [(i, float(t)) for i, t, _ in states[1]] == [(i, float(t)) for i, t, _ in states[0]]
    for (*_, wanted), (*_, found) in zip(*states, strict=True):
        assert distance(found, wanted) < 1e-11


def test_a_sample_does_not_depend_on_its_neighbours():
    schedule, spec = al.get("schedule", "vp")(), al.testing.SPECS["molecule"]
    torch.manual_seed(0)
    denoiser = al.Preconditioned(
        PointNet(spec).eval().double(), schedule, al.get("prediction", "v")()
    )
    blank = al.testing.example(spec)
    times = al.get("grid", "log_snr")()(schedule, 30)
    solver = ParaDiGMS(al.get("solver", "ddpm")(), window=10, tolerance=1e-2)
    with torch.no_grad():
        x, noise = start(schedule, blank)
        joint = al.solve(solver, denoiser, schedule, x, times, noise)
        assert al.testing.in_subspace(joint)
        for i in range(4):
            own = al.Noise.of(0, [i])
            first = schedule.sigma(1.0) * own.like(alone(blank, i))
            one = al.solve(solver, denoiser, schedule, first, times, own)
            assert distance(one, alone(joint, i)) < 1e-12


def test_each_sample_keeps_its_condition():
    schedule, blank = al.get("schedule", "vp")(), SPEC.blank(4, dtype=torch.float64)
    cond = al.Condition({"mean": torch.tensor([1.0, -0.5, 0.2, 2.0], dtype=torch.float64)})
    for denoiser in (ConditionalGaussian(schedule), ClassifierFree(ConditionalGaussian(schedule))):
        bound = denoiser.bind(cond)
        (wanted, found), (one, many) = both(
            al.get("solver", "euler")(), 1e-5, 30, schedule, bound, blank
        )
        assert distance(found, wanted) < 1e-3 and many.calls < one.calls


def test_given_entries_follow_their_samples():
    schedule, spec = al.get("schedule", "vp")(), al.testing.SPECS["text"]
    blank = al.testing.example(spec)
    known = al.Noise.of(3, 4).like(blank)
    given = {"z": blank.masks["z"] & (torch.arange(9) < 2)}
    denoiser = Completion(al.testing.GaussianDenoiser(schedule, 0.0, 1.0), known, given, scale=0.0)
    index = torch.tensor([2, 0, 2])
    x = al.Noise.of(5, 4).like(blank)
    some = denoiser.bind(None).select(index)
    assert distance(some(x.select(index), 0.5), denoiser(x, 0.5).select(index)) == 0
    (wanted, found), _ = both(
        al.get("solver", "euler")(), 0.0, 10, schedule, denoiser.bind(None), blank
    )
    assert distance(found, wanted) < 1e-11


def test_means_and_widths_per_sample_follow_their_samples():
    schedule, blank = al.get("schedule", "vp")(), SPEC.blank(4, dtype=torch.float64)
    mean = al.Noise.of(3, 4).like(blank)
    exact = al.testing.GaussianDenoiser(schedule, mean, 0.3)
    (wanted, found), _ = both(al.get("solver", "euler")(), 0.0, 10, schedule, exact, blank)
    assert distance(found, wanted) < 1e-11


class Remembering(al.Denoiser):
    """Knows whether it is called for the first time."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.calls = schedule, 0

    def fresh(self):
        return Remembering(self.schedule)

    def forward(self, x, t, cond=None):
        self.calls += 1
        return (0.5 / self.calls) * x


def test_what_remembers_is_solved_one_step_after_the_other():
    schedule, blank = al.get("schedule", "vp")(), SPEC.blank(2, dtype=torch.float64)
    base = al.get("solver", "euler")()
    exact = mixture(schedule)
    for direct in (Remembering(schedule), ClassifierFree(Remembering(schedule))):
        assert direct.select(torch.arange(2)) is None
    for denoise in (
        lambda: Remembering(schedule).bind(None),
        lambda: ClassifierFree(Remembering(schedule)).bind(None),
        lambda: Recalling(exact, None),
        lambda: functools.partial(exact.forward),
    ):
        assert as_denoise(denoise()).select(torch.arange(2)) is None
        times = al.get("grid", "log_snr")()(schedule, 10)
        x, _ = start(schedule, blank)
        wanted = al.solve(base, denoise(), schedule, x, times)
        counted = Counted(denoise(), 2)
        with pytest.warns(UserWarning, match="one step after the other"):
            found = al.solve(ParaDiGMS(base), counted, schedule, x, times)
        assert distance(found, wanted) == 0 and counted.calls == 10


def test_times_per_sample():
    schedule, blank = al.get("schedule", "flow")(), SPEC.blank(3, dtype=torch.float64)
    first = al.get("grid", "log_snr")()(schedule, 20)
    times = torch.stack([first, first**2, first**0.5], 1)
    exact, mean, _ = gaussian(schedule, blank)
    x, noise = start(schedule, blank)
    base = al.get("solver", "euler")()
    wanted = al.solve(base, exact, schedule, x, times)
    found = al.solve(ParaDiGMS(base, tolerance=0.0), exact, schedule, x, times)
    assert distance(found, wanted) < 1e-11


def test_counts_of_some_samples():
    schedule = al.get("schedule", "vp")()
    exact = al.testing.GaussianDenoiser(schedule, 0.0, 1.0)
    counted, x = Counted(exact, 4), SPEC.blank(3)
    counted.select(torch.tensor([1, 3, 1]))(x, 0.5)
    counted(SPEC.blank(4), 0.5)
    assert counted.calls == 2 and counted.evaluations.tolist() == [1, 3, 1, 2]


def test_settings_that_have_no_meaning():
    for base in ("dpmpp_2m", "pndm", "dopri5", "predictor_corrector"):
        with pytest.raises(ValueError, match="looks back at no step"):
            ParaDiGMS(al.get("solver", base)())
    with pytest.raises(ValueError, match="looks back at no step"):
        ParaDiGMS(al.get("solver", "heun")(churn=5.0))
    with pytest.raises(ValueError, match="window >= 1"):
        ParaDiGMS(window=0)
