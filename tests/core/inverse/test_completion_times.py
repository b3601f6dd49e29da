"""Completion by times of entries: the law of the rest given what is known, for every solver."""

import itertools
import math

import pytest
import torch

import anylatent as al
from anylatent.core.denoisers import flatten
from anylatent.core.guidance.autoguidance import Autoguidance
from anylatent.core.guidance.classifier import ClassifierGuidance
from anylatent.core.inverse.completion import Completion
from anylatent.core.solvers.adaptive import Adaptive
from tests.core.toys import ExactData, distance, sizes, spiked, unflat
from tests.matrix import covering

SPECS = al.testing.SPECS
DETERMINISTIC = [n for n in al.names("solver") if not al.get("solver", n)().stochastic]
WIDE = al.get("grid", "log_snr")(-14.0, 24.0)  # so far out that its ends count nothing
STD, MEAN = 0.4, 0.3


class Problem:
    """Samples of known entries 0 (and 2, of the frames): x0 of any solver is affine in the start.

    Row 0 starts at zero, row j at the j-th free number of the sample that it belongs to. Texts
    come in two lengths, one padded.
    """

    def __init__(self, key, name, inside=False):
        self.schedule = al.get("schedule", name)()
        self.blank = sizes(SPECS[key], 2)
        draw = al.Noise.of(11, 2)
        spikes = [
            self._within(draw.like(self.blank), k) if inside else draw.like(self.blank)
            for k in (1, 0)
        ]
        self.spikes = [spike / spike.norm() for spike in spikes]
        self.known = al.Noise.of(3, 2).like(self.blank)
        count = self.blank["z"].shape[1]
        mask = torch.zeros(2, count, dtype=torch.bool)
        mask[:, 0] = True
        if key == "video":
            mask[:, 2] = True
        self.mask = mask

    def _within(self, x, entry):
        """A spike that lies in one entry alone, so that entries are independent."""
        only = torch.zeros_like(x["z"])
        only[:, entry] = x["z"][:, entry]
        return x.replace(z=only)

    def exact(self, rows=None, **settings):
        spikes = self.spikes if rows is None else [spike.select(rows) for spike in self.spikes]
        return al.testing.SpikedGaussian(self.schedule, MEAN, STD, spikes, [1.5, 3.0], **settings)

    def free(self):
        """Which numbers are to be found, (2, D)."""
        shaped = self.mask.reshape(self.mask.shape + (1,) * (self.blank["z"].ndim - 2))
        free = ~shaped.expand_as(self.blank["z"])
        if self.blank.masks:
            free = free & self.blank.masks["z"][..., None]
        return flatten(self.blank.replace(z=free.double())) > 0

    def wanted(self):
        """Mean (2, D) and covariance (2, D, D) of x0 given the known entries."""
        shaped = self.mask.reshape(self.mask.shape + (1,) * (self.blank["z"].ndim - 2))
        measure = lambda v: v.replace(z=torch.where(shaped, v["z"], 0))  # noqa: E731
        mean, spread = self.exact().posterior(measure, measure(self.known), 0.0, self.blank)
        return flatten(mean), spread

    def reached(self, solver, steps, scale=1.0, **settings):
        """Mean and covariance of what a solver makes of x_1's law given the known entries."""
        free, (mean, spread) = self.free(), self.wanted()
        picks = [row.nonzero()[:, 0] for row in free]
        rows = torch.cat([torch.full((1 + len(p),), i) for i, p in enumerate(picks)])
        starts = torch.zeros(len(rows), free.shape[1], dtype=torch.float64)
        first = [0, 1 + len(picks[0])]
        for begin, pick in zip(first, picks, strict=True):
            starts[torch.arange(begin + 1, begin + 1 + len(pick)), pick] = 1.0
        x = unflat(starts, self.blank.select(rows))
        given = {"z": self.mask[rows]}
        model = Completion(self.exact(rows, **settings), self.known.select(rows), given, scale)
        times = WIDE(self.schedule, steps)
        ended = al.solve(solver, model.bind(None), self.schedule, x, times)
        assert al.testing.in_subspace(ended, 1e-9)
        found = flatten(ended)
        alpha, sigma = (float(c) for c in self.schedule.coefficients(times[0]))
        moments = []
        for i, (begin, pick) in enumerate(zip(first, picks, strict=True)):
            own = found[begin : begin + 1 + len(pick), pick]
            push = (own[1:] - own[0]).T  # of a unit of the start
            noisy = alpha**2 * spread[i][pick][:, pick] + sigma**2 * torch.eye(len(pick)).double()
            moments.append((own[0] + push @ (alpha * mean[i, pick]), push @ noisy @ push.T))
        return moments

    def off(self, moments):
        """Errors of mean and covariance in units of the narrowest deviation."""
        (mean, spread), free = self.wanted(), self.free()
        total = 0.0
        for i, (got, covariance) in enumerate(moments):
            pick = free[i].nonzero()[:, 0]
            total += float((got - mean[i, pick]).square().mean()) / STD**2
            gap = covariance - spread[i][pick][:, pick]
            total += float(gap.square().sum() / len(pick)) / STD**4
        return math.sqrt(total)


def slope(problem, solver, **settings):
    """Of the error, the best from 80 to 320 steps, and the last error; of an adaptive one 0."""
    if isinstance(solver, Adaptive):
        return 0.0, problem.off(problem.reached(solver, 4, **settings))
    errors = [problem.off(problem.reached(solver, steps, **settings)) for steps in (80, 160, 320)]
    return max(math.log2(a / b) for a, b in itertools.pairwise(errors)), errors[-1]


KINDS = (("video", "flow"), ("text", "vp"))
IN_TURNS = covering(DETERMINISTIC, KINDS)


@pytest.mark.parametrize(("name", "kind"), IN_TURNS)
def test_completion_by_times_has_the_conditional_s_law_at_the_solver_s_order(name, kind):
    key, schedule = kind
    problem, solver = Problem(key, schedule), al.get("solver", name)()
    order, error = slope(problem, solver)
    assert order > solver.order - 0.25 or error < 10 * solver.tolerance, (order, error)
    assert error < 0.09


@pytest.mark.parametrize(("name", "kind"), IN_TURNS)
def test_replacement_has_it_only_where_entries_are_independent(name, kind):
    """With spikes over several entries its error stays, however many the steps."""
    key, schedule = kind
    solver, replaced = al.get("solver", name)(), {"scale": 0.0, "entry_times": False}
    order, error = slope(Problem(key, schedule, inside=True), solver, **replaced)
    assert order > solver.order - 0.25 or error < 10 * solver.tolerance, (order, error)
    problem = Problem(key, schedule)
    few, many = (problem.off(problem.reached(solver, steps, **replaced)) for steps in (40, 160))
    assert many > 0.4 and few < 1.5 * many, (few, many)


def start_of(problem, rows):
    blank = problem.blank.select(rows)
    noise = al.Noise.of(0, blank.batch)
    return problem.schedule.sigma(1.0) * noise.like(blank), noise


@pytest.mark.parametrize("name", al.names("solver"))
def test_what_is_given_is_in_every_sample(name):
    problem, rows = Problem("text", "vp"), torch.tensor([0, 1, 0, 1])
    x, noise = start_of(problem, rows)
    known, given = problem.known.select(rows), {"z": problem.mask[rows]}
    model = Completion(problem.exact(rows), known, given)
    solver, times = al.get("solver", name)(), WIDE(problem.schedule, 20)
    z = al.solve(solver, model.bind(None), problem.schedule, x, times, noise)
    assert al.testing.in_subspace(z, 1e-9)
    near = 0.02 if name == "adams" else max(1e-9, 10 * solver.tolerance)  # it extrapolates
    assert torch.allclose(z["z"][:, 0], known["z"][:, 0], atol=near)
    assert float((z["z"][0, 1:] - z["z"][2, 1:]).abs().mean()) > 0.05  # the rest is drawn


@pytest.mark.parametrize("name", ("ddpm", "dpmpp_2m_sde"))
def test_a_stochastic_solver_draws_the_conditional_s_law(name):
    """Mean and variance of each free number, of 2,000 draws, to 4.5 standard errors."""
    problem, count = Problem("text", "vp"), 2000
    rows = torch.zeros(count, dtype=torch.long)
    x, noise = start_of(problem, rows)
    model = Completion(problem.exact(rows), problem.known.select(rows), {"z": problem.mask[rows]})
    times = al.get("grid", "log_snr")()(problem.schedule, 100)
    z = al.solve(al.get("solver", name)(), model.bind(None), problem.schedule, x, times, noise)
    pick = problem.free()[0]
    mean, spread = problem.wanted()
    mean, variance = mean[0, pick], spread[0].diagonal()[pick]
    found = flatten(z)[:, pick]
    assert float(((found.mean(0) - mean).abs() / (variance / count).sqrt()).max()) < 4.5
    assert float((found.var(0) / variance - 1).abs().max()) < 4.5 * (2 / count) ** 0.5 + 0.02


def test_a_network_with_times_of_entries_completes_as_the_exact_denoiser_does():
    """Told by c_noise alone, clipped to ±5: entries at time 0 are known to e^-20."""
    problem, rows = Problem("video", "vp"), torch.tensor([0, 1])
    kind = al.get("prediction", "data")()
    model = al.Preconditioned(
        ExactData(problem.exact(), SPECS["video"]), problem.schedule, kind, tells={"given"}
    )
    x, _ = start_of(problem, rows)
    given = {"z": problem.mask}
    for t in (0.9, 0.4, torch.tensor([0.3, 0.6]).double()):
        got = Completion(model, problem.known, given)(x, t)
        assert distance(got, Completion(problem.exact(), problem.known, given)(x, t)) < 1e-3


def test_neighbours_and_selection_change_nothing():
    problem, rows = Problem("text", "vp"), torch.tensor([0, 1])
    x, _ = start_of(problem, rows)
    model = Completion(problem.exact(), problem.known, {"z": problem.mask})
    joint = model(x, 0.4)
    for i in range(2):
        row = torch.tensor([i])
        assert distance(model.select(row)(x.select(row), 0.4), joint.select(row)) < 1e-12
    each = torch.full(problem.mask.shape, 0.4, dtype=torch.float64)
    assert distance(model(x, each), joint) < 1e-12  # times of a solver's own, for each entry
    rolling = torch.linspace(0.2, 0.8, 5).double().expand(2, 5)
    moved = model(x, rolling)
    wanted = problem.exact()(
        x.replace(z=torch.where(problem.mask[..., None], problem.known["z"], x["z"])),
        torch.where(problem.mask, 0.0, rolling),
    )
    hidden = ~problem.mask[..., None] & x.masks["z"][..., None]
    gap = torch.where(hidden, moved["z"] - wanted["z"], 0)
    assert float(gap.abs().max()) < 1e-12


def test_regions_that_times_cannot_tell_are_guided_or_replaced_over_any_axes():
    """Half of each picture is known; the exact denoiser has no entries and takes no times."""
    spec, schedule = SPECS["image"], al.get("schedule", "vp")()
    blank = spec.blank(3, dtype=torch.float64)
    exact, _ = spiked(schedule, blank)
    known, noise = al.Noise.of(1, 3).like(blank), al.Noise.of(0, 3)
    mask = (torch.arange(8) < 4).view(1, 1, 8, 1).expand(3, 1, 8, 8)
    x = schedule.sigma(1.0) * noise.like(blank)
    for given in (mask, mask[..., :1], mask.expand(3, 4, 8, 8)):
        model = Completion(exact, known, {"z": given})
        z = al.solve(al.get("solver", "ddim")(), model, schedule, x, WIDE(schedule, 20))["z"]
        assert torch.allclose(z[:, :, :4], known["z"][:, :, :4], atol=1e-9)
        assert float((z[:, :, 4:] - known["z"][:, :, 4:]).abs().mean()) > 0.3
    video = Problem("video", "vp")
    region = (torch.arange(4) < 2).view(1, 1, 1, 4).expand(2, 1, 1, 4)
    model = Completion(video.exact(), video.known, {"z": region})
    assert model.entries is None
    z = model(video.known, 0.5)["z"]
    assert torch.allclose(z[..., :2, :], video.known["z"][..., :2, :], atol=1e-12)


def test_masks_that_do_not_fit_are_errors():
    problem = Problem("video", "vp")
    for bad in (torch.ones(2, 4), torch.ones(3, 3), torch.ones(2), torch.ones(2, 3, 1, 1, 1, 1)):
        with pytest.raises(ValueError, match="leading axes"):
            Completion(problem.exact(), problem.known, {"z": bad.bool()})
    atoms = sizes(SPECS["molecule"], 2)
    exact, _ = spiked(problem.schedule, atoms)
    each = torch.ones(2, 5, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="all coordinates"):
        Completion(exact, atoms, {"x": each, "h": each[..., 0]})


def test_guidance_completes_by_times_where_all_that_it_asks_knows_them():
    problem = Problem("text", "vp")
    exact, blind = problem.exact(), problem.exact(entry_times=False)
    assert Autoguidance(exact, exact).entry_times and Autoguidance(exact).entry_times
    assert not Autoguidance(exact, blind).entry_times
    steer = {"kind": lambda x, t: torch.zeros(x.batch, 2)}
    assert not ClassifierGuidance(exact, steer).entry_times
    assert ClassifierGuidance(exact, {}).entry_times
    guided = Autoguidance(exact, exact, 3.0, rescale=0.5)  # of equals nothing is changed
    x, _ = start_of(problem, torch.tensor([0, 1]))
    got = Completion(guided, problem.known, {"z": problem.mask})(x, 0.5)
    assert distance(got, Completion(exact, problem.known, {"z": problem.mask})(x, 0.5)) < 1e-9
