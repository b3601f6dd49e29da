"""Samples that begin with what is given: exact, in place, and right for a Gaussian."""

import pytest
import torch

import anylatent as al
from anylatent.core.denoisers.base import Denoiser
from anylatent.core.inverse.completion import Completion, begin_with

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
    near = 5e-3 if solver == "adams" else 1e-9  # it ends in an extrapolation, not in an estimate
    assert torch.allclose(z["h"][:, :3], known["h"], atol=near)
    shape = z["x"][:, :3] - z["x"][:, :3].mean(1, keepdim=True)
    wanted = known["x"] - known["x"].mean(1, keepdim=True)
    assert torch.allclose(shape, wanted, atol=near)
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


class Pairs(Denoiser):
    """E[x0 | x_t] for samples of two entries N(0, 1) of correlation `rho`."""

    def __init__(self, schedule, rho):
        super().__init__()
        self.schedule = schedule
        self.covariance = torch.tensor([[1, rho], [rho, 1]]).double()

    def forward(self, x, t, cond=None):
        alpha, sigma = self.schedule.coefficients(torch.as_tensor(t).double())
        total = alpha**2 * self.covariance + sigma**2 * torch.eye(2).double()
        gain = alpha * self.covariance @ torch.linalg.inv(total)
        return x.replace(z=torch.einsum("ij,bjc->bic", gain, x["z"]))


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_the_rest_fits_what_is_given(rho):
    """b | a of a correlated Gaussian: replacement falls short of its mean, guidance hits it."""
    schedule, count, a = al.get("schedule", "edm")(), 1500, 1.5
    spec = al.LatentSpec({"z": al.Field((None, 1))})
    blank = spec.blank(count, [2] * count, dtype=torch.double)
    known = blank.replace(z=torch.tensor([[a], [0.0]]).double().expand(count, 2, 1))
    given = {"z": torch.tensor([[True, False]]).expand(count, 2)}
    means, stds = [], []
    for scale in (0.0, 1.0):
        denoiser = Completion(Pairs(schedule, rho), known, given, scale)
        times, noise = al.get("grid", "log_snr")()(schedule, 60), al.Noise.of(0, count)
        start = float(schedule.sigma(times[0])) * noise.like(blank)
        solver = al.get("solver", "heun")(churn=80.0, churn_min=0.02, churn_max=5.0)
        z = al.solve(solver, denoiser, schedule, start, times, noise)["z"]
        assert torch.allclose(z[:, 0], torch.full_like(z[:, 0], a))
        means.append(float(z[:, 1].mean()))
        stds.append(float(z[:, 1].std()))
    assert means[1] == pytest.approx(rho * a, abs=0.07)
    assert stds[1] == pytest.approx((1 - rho**2) ** 0.5, rel=0.1)
    assert means[0] < rho * a - 0.2


def test_a_denoiser_that_was_trained_to_complete_is_shown_what_is_given():
    schedule = al.get("schedule", "edm")()
    seen = []

    class Trained(al.testing.GaussianDenoiser):
        sees_given = True

        def forward(self, x, t, cond=None):
            seen.append((x, cond))
            return super().forward(x, t)

    text = al.testing.SPECS["text"]
    x, known = (al.Noise.of(s, 4).like(al.testing.example(text)) for s in (0, 1))
    given = {"z": torch.zeros(x["z"].shape[:2], dtype=torch.bool)}
    given["z"][:, 1] = True
    out = Completion(Trained(schedule, 0.0, 1.0), known, given)(x, torch.tensor(0.5))
    ((shown, cond),) = seen
    assert torch.equal(shown["z"][:, 1], known["z"][:, 1]) and "given" in cond.always
    assert torch.equal(cond.values["given"][..., 0].bool(), given["z"])
    assert torch.allclose(out["z"][:, 1], known["z"][:, 1])
