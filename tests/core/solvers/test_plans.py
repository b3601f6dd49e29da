"""A plan is made once for a solver, a schedule and times, and anew when any of them is another."""

import pytest
import torch

import anylatent as al
from anylatent.core.solvers import plans
from anylatent.core.solvers.plans import planned

SPEC = al.LatentSpec({"z": al.Field((2, 3))})
TIMES = torch.linspace(1, 0, 7).double()


@pytest.fixture(autouse=True)
def empty():
    plans._kept.clear()


@pytest.mark.parametrize("name", al.names("solver"))
def test_every_solver_has_one(name):
    solver, schedule = al.get("solver", name)(), al.get("schedule", "vp")()
    first = planned(solver, schedule, TIMES)
    assert planned(solver, schedule, TIMES.clone()) is first
    assert planned(solver, schedule, 0.9 * TIMES) is not first
    each = TIMES[:, None].expand(-1, 3)
    if name not in ("dopri5", "adaptive_sde"):  # which take no grid for each sample
        assert planned(solver, schedule, each) is planned(solver, schedule, each) is not first
    assert planned(solver, al.get("schedule", "cosine")(), TIMES) is not first
    assert planned(solver, schedule, TIMES) is first


@pytest.mark.parametrize("name", [n for n in al.names("schedule") if n != "learned"])
def test_every_schedule_that_learns_nothing_has_one(name):
    solver, schedule = al.get("solver", "ddim")(), al.get("schedule", name)()
    assert planned(solver, schedule, TIMES) is planned(solver, schedule, TIMES)


def test_what_is_changed_has_another():
    solver, schedule = al.get("solver", "ddim")(), al.get("schedule", "table")()
    first = planned(solver, schedule, TIMES)
    solver.eta = 0.5
    second = planned(solver, schedule, TIMES)
    assert second is not first
    held = [value for value in vars(schedule).values() if isinstance(value, torch.Tensor)]
    held[0].mul_(1.0)  # whatever was written
    assert planned(solver, schedule, TIMES) is not second


def test_a_schedule_that_learns_has_none():
    solver, schedule = al.get("solver", "ddim")(), al.get("schedule", "learned")()
    first = planned(solver, schedule, TIMES)
    assert planned(solver, schedule, TIMES) is not first and not plans._kept


def test_few_are_kept():
    solver, schedule = al.get("solver", "ddim")(), al.get("schedule", "vp")()
    for step in range(20):
        planned(solver, schedule, TIMES * (1 - step / 100))
    assert len(plans._kept) == 4


def test_a_plan_of_inference_mode_is_none_for_autograd():
    """Of adams, whose network is asked at times that a gradient is kept for."""
    solver, schedule = al.get("solver", "adams")(), al.get("schedule", "vp")()
    scale = torch.tensor(0.5, requires_grad=True)
    x, times = SPEC.blank(2).map(torch.ones_like), TIMES.clone()

    def denoise(x, t):
        return x.map(lambda value: value * (scale * t.float()))

    with torch.inference_mode():
        wanted = al.solve(solver, denoise, schedule, x.map(torch.clone), times)["z"].clone()
    found = al.solve(solver, denoise, schedule, x, times)["z"]
    found.sum().backward()
    assert torch.equal(found, wanted) and scale.grad.isfinite() and len(plans._kept) == 2
