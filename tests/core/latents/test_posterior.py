"""Posteriors: samples and KL divergence on a masked, centred space, against closed forms."""

import pytest
import torch

import anylatent as al
from anylatent.core.latents.posterior import Posterior
from anylatent.core.testing.examples import spoil
from tests.core.toys import alone, distance

MOLECULE = al.testing.SPECS["molecule"]


def posterior(spec=MOLECULE, batch=4):
    """Deviations equal over the points of a sample, different between samples and channels."""
    blank = al.testing.example(spec, batch)
    mean = al.Noise.of(0, batch).like(blank)

    def log_std(x):
        shape = [x.shape[0], *[1] * (x.ndim - 2), x.shape[-1]]
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
        return (0.5 * drawn).expand_as(x).clone()

    return Posterior(mean, blank.map(log_std))


def test_kl_on_a_plain_space_is_that_of_torch():
    q = posterior(al.testing.SPECS["shape"])
    wanted = 0
    for name, mean in q.mean.parts.items():
        normal = torch.distributions.Normal(mean, q.log_std[name].exp())
        unit = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
        wanted = wanted + torch.distributions.kl_divergence(normal, unit).flatten(1).sum(1)
    assert torch.allclose(q.kl(), wanted)


def test_kl_on_a_centred_space_by_its_covariance():
    """In an orthonormal basis of the zero-mean vectors the Gaussian is s²·I in N - 1 dimensions."""
    q = posterior()
    for i in range(4):
        n = int(q.mean.lengths("x")[i])
        mean, std = q.mean["x"][i, :n], q.log_std["x"][i, 0].exp()
        basis = torch.linalg.svd(torch.eye(n).double() - 1 / n)[0][:, : n - 1]
        total = 0.5 * ((basis.T @ mean) ** 2).sum()
        total = total + (n - 1) * (0.5 * (std**2 - 1) - std.log()).sum()
        h, std = q.mean["h"][i, :n], q.log_std["h"][i, :n].exp()
        total = total + (0.5 * (h**2 + std**2 - 1) - std.log()).sum()
        assert float(q.kl()[i]) == pytest.approx(float(total), rel=1e-6)


def test_samples_have_the_posterior_s_moments():
    q, count = posterior(batch=1), 4000
    many = Posterior(q.mean.select([0] * count), q.log_std.select([0] * count))
    z = many.sample(al.Noise.of(1, count))
    n = z["x"].shape[1]
    for name, shrink in (("x", 1 - 1 / n), ("h", 1.0)):
        std = q.log_std[name][0].exp() * shrink**0.5
        assert bool(((z[name].mean(0) - q.mean[name][0]).abs() < 5 * std / count**0.5).all())
        assert torch.allclose(z[name].std(0), std, rtol=5 / (2 * count) ** 0.5)


def test_padding_and_neighbours_have_no_part():
    q = posterior()
    dirty = Posterior(q.mean, spoil(q.log_std))
    assert torch.equal(dirty.kl(), q.kl())
    z = dirty.sample(al.Noise.of(1, 4))
    assert al.testing.in_subspace(z)
    for i in range(4):
        own = Posterior(alone(q.mean, i), alone(q.log_std, i))
        assert distance(own.sample(al.Noise.of(1, [i])), alone(z, i)) < 1e-12
        assert torch.allclose(own.kl(), q.kl()[i : i + 1])


def test_a_point_mass_is_its_mean_and_has_no_kl():
    q = Posterior(posterior().mean)
    assert q.sample(al.Noise.of(0, 4)) is q.mean
    with pytest.raises(ValueError, match="point mass"):
        q.kl()
