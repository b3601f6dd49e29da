"""Samples that begin with what is given: exact, in place, and right for a Gaussian."""

import pytest
import torch

import anylatent as al
from anylatent.core.guidance.completion import Completion, begin_with

SPEC = al.testing.SPECS["molecule"]
SIZES = (6, 9, 4)


def latent(sizes, seed=0):
    return al.Noise.of(seed, len(sizes)).like(SPEC.blank(len(sizes), sizes, dtype=torch.double))


def completed(solver, steps=20):
    """Samples of an exact Gaussian whose first three points are given."""
    schedule = al.get("schedule", "edm")()
    known = latent([3, 3, 3], seed=7)
    blank = SPEC.blank(3, SIZES, dtype=torch.double)
    begun, given = begin_with(known, blank)
    exact = al.testing.GaussianDenoiser(schedule, 0.0, 0.7)
    times, noise = al.get("grid", "log_snr")()(schedule, steps), al.Noise.of(0, 3)
    start = float(schedule.sigma(times[0])) * noise.like(blank)
    denoiser = Completion(exact, begun, given)
    return known, al.solve(al.get("solver", solver)(), denoiser, schedule, start, times, noise)


@pytest.mark.parametrize("solver", al.names("solver"))
def test_what_is_given_is_in_every_sample(solver):
    known, z = completed(solver)
    assert al.testing.in_subspace(z, 1e-10)
    assert torch.allclose(z["h"][:, :3], known["h"], atol=1e-9)
    shape = z["x"][:, :3] - z["x"][:, :3].mean(1, keepdim=True)
    wanted = known["x"] - known["x"].mean(1, keepdim=True)
    assert torch.allclose(shape, wanted, atol=1e-9)
    rest = z["h"][1, 3:]
    assert float(rest.std()) > 0.3  # the rest is drawn, not given


def test_begin_with_marks_what_counts_and_needs_room():
    known = latent([3, 1, 2])
    begun, given = begin_with(known, SPEC.blank(3, SIZES, dtype=torch.double))
    assert given["x"].sum(1).tolist() == [3, 1, 2] and given["h"].sum(1).tolist() == [3, 1, 2]
    assert torch.equal(begun["h"][0, :3], known["h"][0])
    assert begun["x"].shape == (3, 9, 3)
    with pytest.raises(ValueError, match="more entries"):
        begin_with(latent([5, 5, 5]), SPEC.blank(3, SIZES, dtype=torch.double))
    fixed = al.testing.SPECS["image"]
    with pytest.raises(ValueError, match="fixed length"):
        begin_with(fixed.blank(1), fixed.blank(1))


def test_nothing_given_changes_nothing():
    schedule = al.get("schedule", "edm")()
    exact = al.testing.GaussianDenoiser(schedule, 0.2, 0.7)
    x = latent(SIZES)
    none = {name: torch.zeros_like(mask) for name, mask in x.masks.items()}
    out = Completion(exact, x.zeros(), none)(x, torch.tensor(0.4))
    assert torch.allclose(out["x"], exact(x, torch.tensor(0.4))["x"])
    assert torch.allclose(out["h"], exact(x, torch.tensor(0.4))["h"])


def test_neighbours_change_nothing():
    schedule = al.get("schedule", "edm")()
    exact = al.testing.GaussianDenoiser(schedule, 0.0, 0.7)
    x, known = latent(SIZES), latent([3, 2, 1], seed=3)
    begun, given = begin_with(known, x)
    joint = Completion(exact, begun, given)(x, torch.tensor(0.3))
    row = slice(1, 2)
    only = {name: mask[row] for name, mask in given.items()}
    lonely = Completion(exact, begun.select(row), only)(x.select(row), torch.tensor(0.3))
    assert torch.allclose(joint["x"][row], lonely["x"], atol=1e-12)


def test_given_points_lie_where_the_denoiser_has_them():
    schedule = al.get("schedule", "edm")()
    exact = al.testing.GaussianDenoiser(schedule, 0.0, 0.7)
    x, known = latent(SIZES), latent([3, 3, 3], seed=3)
    begun, given = begin_with(known, x)
    out, found = (d(x, torch.tensor(0.3))["x"] for d in (Completion(exact, begun, given), exact))
    assert torch.allclose(out[:, :3].mean(1), found[:, :3].mean(1), atol=1e-12)
    assert torch.allclose(out[:, 3:], found[:, 3:], atol=1e-12)
