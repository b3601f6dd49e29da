"""What solvers keep from step to step: its memory is used again, and nobody notices."""

import functools
import itertools

import pytest
import torch

import anylatent as al
from anylatent.core.denoisers import as_denoise
from anylatent.core.solvers.base import weighted
from tests.core.toys import gaussian, start

SOLVERS = {
    "adams": {}, "adams 2": {"order": 2, "corrector": False}, "plms": {}, "pndm": {}, "deis": {},
    "dpmpp_2m": {}, "dpmpp_3m": {}, "dpmpp_2m_sde": {}, "dpm_solver_m": {}, "unipc": {},
}  # fmt: skip
SPEC = al.LatentSpec({"x": al.Field((3, 4)), "h": al.Field((5,))})


def made(name):
    return al.get("solver", name.partition(" ")[0])(**SOLVERS[name])


def solved(name, denoise, callback=None, first=1.0, per_sample=False):
    """Ten steps, from the middle too, and with a grid for each sample."""
    schedule = al.get("schedule", "vp")()
    times = torch.linspace(first, 0.0, 11).double()
    if per_sample:
        times = times[:, None] * torch.tensor([1.0, 0.9, 0.8]).double()
    x = first * start(schedule, SPEC.blank(3))[0]
    return al.solve(made(name), denoise, schedule, x, times, al.Noise(range(3)), callback)


def exact():
    return gaussian(al.get("schedule", "vp")(), SPEC.blank(3))[0]


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("first", [1.0, 0.6])
@pytest.mark.parametrize("per_sample", [False, True])
def test_bits_are_those_of_fresh_memory(name, first, per_sample, monkeypatch):
    denoise = exact()
    with torch.no_grad():
        found = solved(name, denoise, first=first, per_sample=per_sample)
        fresh = functools.partial(lambda *terms, room=None: weighted(*terms))
        monkeypatch.setattr("anylatent.core.solvers.multistep.weighted", fresh)
        wanted = solved(name, denoise, first=first, per_sample=per_sample)
    assert all(torch.equal(found[key], wanted[key]) for key in SPEC.fields)


def the_input(x, t):
    return x


def one_tensor():
    kept = []

    def denoise(x, t):
        kept.append(0.5 * x) if not kept else None
        return kept[0]

    return denoise


def a_view(x, t):
    return x.map(lambda tensor: tensor.view(tensor.shape))


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("kind", [lambda: the_input, one_tensor, lambda: a_view])
def test_what_a_denoiser_returns_and_what_a_callback_keeps_is_never_written_to(name, kind):
    seen, returned = [], []
    plain = kind()

    def watched(x, t):
        given, found = x.map(torch.clone), plain(x, t)
        returned.append((x, given))
        returned.append((found, found.map(torch.clone)))
        return found

    with torch.no_grad():
        found = solved(name, watched, lambda i, t, x: seen.append((x, x.map(torch.clone))))
        copied = kind()
        wanted = solved(name, lambda x, t: copied(x, t).map(torch.clone))
    for kept, copy in (*seen, *returned):
        assert all(torch.equal(kept[key], copy[key]) for key in SPEC.fields)
    assert all(torch.equal(found[key], wanted[key]) for key in SPEC.fields)


@pytest.mark.parametrize("name", ["adams", "plms", "deis"])
def test_a_value_is_written_where_the_oldest_was(name):
    solver, schedule = made(name), al.get("schedule", "vp")()
    times, denoise = torch.linspace(1, 0, 11).double(), as_denoise(exact())
    x, memory, places = start(schedule, SPEC.blank(3))[0], None, []
    with torch.no_grad():
        for step in solver.plan(schedule, times):
            x, memory = solver.step(denoise, x, step, memory, None)
            places.append([value["x"].data_ptr() for value in memory.values])
    full = [place for place in places if len(place) == max(map(len, places))]
    assert all(after[0] == before[-1] for before, after in itertools.pairwise(full[1:]))


@pytest.mark.parametrize("name", ["adams", "pndm"])
def test_gradients_flow_through_a_solution(name):
    scale = torch.tensor(0.5, requires_grad=True)
    found = solved(name, lambda x, t: x.map(lambda tensor: scale * tensor))
    (slope,) = torch.autograd.grad(found["h"].sum(), scale)
    with torch.no_grad():
        ends = [
            solved(name, lambda x, t, e=e: x.map(lambda v: (scale + e) * v))["h"].sum()
            for e in (1e-2, -1e-2)
        ]
    assert float(slope) == pytest.approx(float(ends[0] - ends[1]) / 2e-2, rel=1e-2)
