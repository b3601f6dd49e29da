"""Every schedule × prediction × solver × number of steps: finite and in its subspace, or an error.

The default run takes a twelfth of all, in turns, each on one of the five kinds of latents; the slow
one takes all of them on all. Solvers that choose their own steps have a loose tolerance, as what
they owe a tight one is tested elsewhere.
"""

import itertools

import pytest
import torch

import anylatent as al
from anylatent.core.solvers import Adaptive
from tests.core.toys import start
from tests.matrix import covering

ZERO = ("cosine", "flow", "shifted", "sigmoid", "sqrt", "zero_terminal_snr")
STEPS = (*range(1, 11), 50)
SPECS = list(al.testing.SPECS.values())
ROUNDING = 1e-9  # of the largest entry; pndm's first step raises it by 1/alpha three times
LOOSE = {"dopri5": {"tolerance": 0.1}, "adaptive_sde": {"tolerance": 0.3}}
MEANINGLESS = {
    "noise": ZERO,
    "score": ZERO,
    "velocity": ("polynomial", "sigmoid", "sqrt"),  # 0 or infinite at t = 1
}


class Rough(al.Backbone):
    """A network that is wrong but bounded, and leaves the subspace: the denoiser projects."""

    def __init__(self, spec):
        super().__init__()
        self.spec, self.conditions = spec, al.ConditionSpec()

    def forward(self, x, c_noise, cond=None):
        level = 0.3 * c_noise.double().tanh()
        return x.map(lambda z: torch.sin(2 * z) + 0.1 + level.reshape(-1, *[1] * (z.ndim - 1)))


def denoiser_of(schedule, prediction, spec):
    return al.Preconditioned(Rough(spec), schedule, al.get("prediction", prediction)())


def check(solver, schedule, prediction, steps, spec, grid="log_snr"):
    denoise = denoiser_of(schedule, prediction, spec)
    x, noise = start(schedule, al.testing.example(spec, 2))
    times = al.get("grid", grid)()(schedule, steps)
    end = al.solve(solver, denoise, schedule, x, times, noise)
    assert al.testing.in_subspace(end, ROUNDING), (prediction, steps, spec)


def solver_of(name):
    return al.get("solver", name)(**LOOSE.get(name, {}))


def meaningful(schedule):
    return [p for p in al.names("prediction") if schedule not in MEANINGLESS.get(p, ())]


@pytest.mark.parametrize(("solver", "schedule"), covering(al.names("solver"), al.names("schedule")))
@torch.no_grad()
def test_every_combination_is_finite_and_in_its_subspace(solver, schedule):
    part, process = solver_of(solver), al.get("schedule", schedule)()
    every = list(itertools.product(meaningful(schedule), STEPS))
    for turn, (prediction, steps) in enumerate(every[len(solver) % 12 :: 12]):
        if not (isinstance(part, Adaptive) and turn % 4):  # it takes its own steps in between
            spec, grid = SPECS[turn % len(SPECS)], ("log_snr", "soft")[turn % 2]
            check(part, process, prediction, steps, spec, grid)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", al.names("schedule"))
@pytest.mark.parametrize("solver", al.names("solver"))
@torch.no_grad()
def test_every_combination_on_every_kind_of_latent(solver, schedule):
    part, process = solver_of(solver), al.get("schedule", schedule)()
    every = itertools.product(meaningful(schedule), STEPS, SPECS)
    for turn, (prediction, steps, spec) in enumerate(every):
        grid = ("log_snr", "soft")[turn % 2]  # 55 of each prediction: each spec and N meets both
        check(part, process, prediction, steps, spec, grid)


@pytest.mark.parametrize("schedule", al.names("schedule"))
@pytest.mark.parametrize("prediction", al.names("prediction"))
def test_what_has_no_meaning_is_an_error_that_says_what_works(prediction, schedule):
    process = al.get("schedule", schedule)()
    assert process.terminal_snr_is_zero == (schedule in ZERO)
    if prediction in meaningful(schedule):
        denoiser_of(process, prediction, SPECS[0])
        return
    with pytest.raises(ValueError, match="has no meaning at t = 1.*[Uu]se prediction="):
        denoiser_of(process, prediction, SPECS[0])
