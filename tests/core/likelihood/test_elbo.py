"""The variational bound against closed forms, which exact denoisers meet."""

import math

import pytest
import torch

import anylatent as al
from anylatent.core.denoisers.exact import constant
from anylatent.core.latents.posterior import Posterior
from anylatent.core.likelihood.elbo import elbo, rounding
from anylatent.core.likelihood.flow import log_likelihood
from tests.core.densities import mixture, network, typical
from tests.core.toys import alone

SCHEDULES = ("vp", "cosine", "edm", "flow", "table", "shifted")
SPACES = {
    "numbers": (al.LatentSpec({"z": al.Field((3,))}), None),
    "padded": (al.testing.SPECS["text"], [2]),
    "centred": (al.testing.SPECS["molecule"], [4]),
}


class Cubature(al.Noise):
    """Draws ±√N·Pe of all N unit vectors e, one per sample, and the middle of every stratum.

    Over the batch their first two moments are those of the normal law on the subspace, so that the
    mean of whatever is quadratic in the noise is exact; the midpoints are as good for λ.
    """

    def uniform(self, *shape):
        return torch.full((self.batch, *shape), 0.5, dtype=torch.float64)

    def like(self, latent):
        units = []
        for name, x in latent.parts.items():
            for place in range(x[0].numel()):
                units.append((name, place))
        drawn = latent.zeros()
        for i, (name, place) in enumerate(units):
            drawn[name].flatten(1)[2 * i, place] = math.sqrt(len(units))
            drawn[name].flatten(1)[2 * i + 1, place] = -math.sqrt(len(units))
        return drawn.project()


def repeated(x0):
    """The one sample as often as the cubature has points."""
    count = 2 * sum(x[0].numel() for x in x0.parts.values())
    return x0.select(torch.zeros(count, dtype=torch.long))


def mean_bound(denoise, schedule, x0, **settings):
    many = repeated(x0)
    return float(elbo(denoise, schedule, many, Cubature(range(many.batch)), **settings).mean())


def one(key, seed=0):
    """A sample of the space in float64, and its mean 0.5."""
    spec, lengths = SPACES[key]
    blank = spec.blank(1, lengths, dtype=torch.float64)
    mean = constant(blank, 0.5)
    return mean + 0.3 * al.Noise.of(seed, 1).like(blank), mean


def divergence(gap, dim, narrow, wide):
    """KL(N(a, narrow) | N(b, wide)) of variances, ‖a - b‖² = gap."""
    return 0.5 * (gap / wide + dim * (narrow / wide - 1 - math.log(narrow / wide)))


def gaussian_bound(schedule, x0, mean, std, high):
    """What the bound is for the exact denoiser of N(mean, std²): all laws are Gaussians.

    -E log p(y), but for the law at t = 1, in whose place the prior N(0, sigma(1)²) is.
    """
    dim, rho = float(x0.dim), math.exp(-high / 2)
    gap = float((x0 - mean).dot(x0 - mean))
    entropy = 0.5 * dim * math.log(2 * math.pi * math.e * rho**2)
    known = divergence(gap, dim, rho**2, std**2 + rho**2) + entropy
    alpha, sigma = float(schedule.alpha(1.0)), float(schedule.sigma(1.0))
    own = divergence(alpha**2 * gap, dim, sigma**2, alpha**2 * std**2 + sigma**2)
    return known - own + 0.5 * (alpha / sigma) ** 2 * float(x0.dot(x0))


@pytest.mark.parametrize("key", SPACES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_gaussian_s_bound_is_its_density(name, key):
    """Pointwise and without noise: only the midpoint rule of λ leaves an error."""
    schedule, (x0, mean) = al.get("schedule", name)(), one(key)
    exact = al.testing.GaussianDenoiser(schedule, 0.5, 0.3)
    for high in (5.0, 14.0):
        wanted = gaussian_bound(schedule, x0, mean, 0.3, high)
        coarse = mean_bound(exact, schedule, x0, high=high, samples=20)
        fine = mean_bound(exact, schedule, x0, high=high, samples=80)
        assert fine == pytest.approx(wanted, abs=2e-3), (coarse, fine)
        assert abs(coarse - wanted) > 8 * abs(fine - wanted), "the midpoint rule is of order 2"
    if schedule.terminal_snr_is_zero:  # the prior is the law at t = 1
        gap = float((x0 - mean).dot(x0 - mean))
        rho = math.exp(-7)
        variance = 0.09 + rho**2
        density = 0.5 * (gap + float(x0.dim) * rho**2) / variance
        density += 0.5 * float(x0.dim) * math.log(2 * math.pi * variance)
        assert fine == pytest.approx(density, abs=2e-3)


def test_data_of_unit_variance_have_the_same_integrand_everywhere():
    """The density of λ is proportional to it: the mean over data needs one level only."""
    schedule, spec = al.get("schedule", "cosine")(), SPACES["numbers"][0]
    x0 = al.Noise.of(0, 2000).like(spec.blank(2000, dtype=torch.float64))
    exact = al.testing.GaussianDenoiser(schedule, 0.0, 1.0)
    found = elbo(exact, schedule, x0, al.Noise.of(1, 2000), samples=1)
    entropy = 1.5 * math.log(2 * math.pi * math.e * (1 + math.exp(-14)))
    assert float(found.mean()) == pytest.approx(entropy, abs=4 * float(found.std()) / 2000**0.5)


@pytest.mark.parametrize("key", SPACES)
def test_drawn_noise_gives_the_same_within_its_error(key):
    schedule, (x0, mean) = al.get("schedule", "flow")(), one(key)
    exact, count = al.testing.GaussianDenoiser(schedule, 0.5, 0.3), 1000
    many = x0.select(torch.zeros(count, dtype=torch.long))
    found = elbo(exact, schedule, many, al.Noise.of(3, count), samples=16, high=8.0)
    error = float(found.std()) / count**0.5
    assert error < 0.4
    wanted = gaussian_bound(schedule, x0, mean, 0.3, 8.0)
    assert float(found.mean()) == pytest.approx(wanted, abs=4 * error)


class Nodes(al.Noise):
    """One normal number per sample, from Gauss and Hermite's rule; the middle of every stratum."""

    def __init__(self, count):
        import numpy

        super().__init__(range(count))
        points, weights = numpy.polynomial.hermite_e.hermegauss(count)
        self.points, self.weights = torch.tensor(points), torch.tensor(weights / weights.sum())

    def uniform(self, *shape):
        return torch.full((self.batch, *shape), 0.5, dtype=torch.float64)

    def like(self, latent):
        return latent.map(lambda x: self.points.reshape(x.shape))


@pytest.mark.parametrize("place", (-0.4, 0.9))
def test_a_mixture_s_bound_is_its_density(place):
    """-E log p(y) by quadrature over y; pointwise in x0, far from any Gaussian."""
    schedule, spec = al.get("schedule", "cosine")(), al.LatentSpec({"z": al.Field((1,))})
    exact, _, log_density = mixture(schedule, spec, 0.2)
    noise = Nodes(64)
    x0 = spec.blank(64, dtype=torch.float64).map(lambda x: torch.full_like(x, place))
    rho = math.exp(-2.0)
    found = elbo(exact, schedule, x0, noise, samples=600, high=4.0)
    wanted = -log_density(x0 + rho * noise.like(x0), rho)
    gap = float((noise.weights * (found - wanted)).sum())
    assert abs(gap) < 1e-3, "what is left are Hermite's rule and the midpoints"
    assert float((noise.weights * wanted).sum()) > 0.5, "not met by accident"


def test_a_mixture_in_many_dimensions_agrees_with_the_exact_likelihood():
    schedule, spec, count = al.get("schedule", "flow")(), al.testing.SPECS["molecule"], 400
    exact, means, log_density = mixture(schedule, spec, lengths=[4])
    x0 = typical(means, 0.3, count, lengths=[4] * count)
    found = elbo(exact, schedule, x0, al.Noise.of(5, count), samples=16, high=8.0)
    rho = math.exp(-4.0)
    y = x0 + rho * al.Noise.of(6, count).like(x0)
    gap = found + log_density(y, rho)
    assert float(gap.mean()) == pytest.approx(0, abs=4 * float(gap.std()) / count**0.5)
    few = y.select(slice(6))
    flow = log_likelihood(exact, schedule, few, noise=None, log_snr=8.0).log_p
    assert torch.allclose(flow, log_density(few, rho), atol=0.02)


# ---- wrong denoisers --------------------------------------------------------------------------
def test_the_denoiser_of_another_law_bounds_that_law():
    """Its bound is -log of its own density: on average over data, worse by their divergence."""
    schedule, (x0, mean) = al.get("schedule", "flow")(), one("padded")
    other = al.testing.GaussianDenoiser(schedule, 0.1, 0.6)
    wanted = gaussian_bound(schedule, x0, constant(x0, 0.1), 0.6, 8.0)
    found = mean_bound(other, schedule, x0, high=8.0, samples=80)
    assert found == pytest.approx(wanted, abs=1e-3)
    assert found > gaussian_bound(schedule, x0, mean, 0.3, 8.0)


def test_a_constant_error_costs_what_it_must():
    """x̂0 + δ(λ) costs ½·∫ exp λ·‖δ‖² dλ over data; here ‖δ‖² = dim·c²/(1 + exp λ)."""
    schedule, spec, c = al.get("schedule", "cosine")(), SPACES["numbers"][0], 0.3
    exact = al.testing.GaussianDenoiser(schedule, 0.0, 1.0)

    def wrong(x, t):
        size = c * schedule.sigma(t)  # 1/(1 + SNR) is sigma²
        return exact(x, t) + size * constant(x, 1.0)

    x0 = spec.blank(1, dtype=torch.float64)  # where the error is not correlated with x0 - x̂0
    excess = mean_bound(wrong, schedule, x0, samples=40) - mean_bound(
        exact, schedule, x0, samples=40
    )
    width = math.log1p(math.exp(14.0)) - math.log1p(math.exp(-20.0))
    assert excess == pytest.approx(0.5 * 3 * c**2 * width, rel=1e-6)


def test_no_network_is_better_than_the_truth():
    """On average over the data, an untrained network's -ELBO lies below the data's log p."""
    schedule, spec, count = al.get("schedule", "cosine")(), al.testing.SPECS["molecule"], 100
    _, means, log_density = mixture(schedule, spec, lengths=[4])
    x0 = typical(means, 0.3, count, lengths=[4] * count)
    for seed in (0, 1):
        denoiser = network(spec, schedule, seed=seed)
        found = elbo(denoiser, schedule, x0, al.Noise.of(2, count), high=4.0)
        truth = -log_density(x0, math.exp(-2.0))
        assert float((found - truth).mean()) > 4 * float((found - truth).std()) / count**0.5


# ---- discrete data ----------------------------------------------------------------------------
def test_rounding_is_the_posterior_of_the_vectors():
    """By hand: two vectors at ±1 in one dimension are a logistic function of y."""
    vectors = torch.tensor([[-1.0], [1.0]])
    y = al.LatentSpec({"z": al.Field((None, 1))}).blank(2, [3, 1], dtype=torch.float64)
    y = y.replace(z=torch.tensor([[[0.3], [-2.0], [1.0]], [[0.5], [9.0], [9.0]]]).double())
    tokens = torch.tensor([[1, 0, 1], [0, 0, 0]])
    found = rounding(vectors, tokens, y.masks["z"])(y, 0.7)
    loss = lambda v: math.log1p(math.exp(-2 * v / 0.49))  # noqa: E731
    assert found.tolist() == pytest.approx([loss(0.3) + loss(2.0) + loss(1.0), loss(-0.5)])
    every = rounding(vectors, tokens)(y, 0.7)  # without a mask the padding, y = 0, counts
    assert float(every[1]) == pytest.approx(loss(-0.5) + 2 * math.log(2))


@pytest.mark.parametrize("high", (2.0, 8.0))
def test_the_entropy_of_tokens_is_met(high):
    """Uniform tokens, exact denoiser, exact posterior: the bound is log V a token, at any level."""
    schedule, size, count = al.get("schedule", "flow")(), 5, 600
    vectors = al.Noise.of(0, size).normal(3).double()
    spec = al.LatentSpec({"z": al.Field((None, 3))})
    lengths = torch.arange(count) % 3 + 1
    blank = spec.blank(count, lengths, dtype=torch.float64)
    tokens = (al.Noise.of(1, count).uniform(3) * size).long()
    x0 = blank.replace(z=vectors[tokens])

    def denoise(x, t):
        alpha, sigma = (c[:, None, None] for c in schedule.coefficients(t))
        scores = -((x["z"][..., None, :] - alpha[..., None] * vectors) ** 2).sum(-1)
        return x.replace(z=torch.softmax(scores / (2 * sigma**2), -1) @ vectors)

    posterior = rounding(vectors, tokens, blank.masks["z"])
    rho, noise = math.exp(-high / 2), al.Noise.of(2, count)
    latents = elbo(denoise, schedule, x0, noise, high=high, samples=24)
    y = x0 + rho * noise.like(x0)
    found = latents - Posterior(x0).entropy(rho) + posterior(y, rho)
    gap = found / lengths - math.log(size)
    error = float(gap.std()) / count**0.5
    assert error < 0.1 and abs(float(gap.mean())) < 4 * error


# ---- invariances and errors -------------------------------------------------------------------
@pytest.mark.parametrize("key", al.testing.SPECS)
def test_neither_neighbours_nor_padding_nor_the_batch(key):
    schedule, spec = al.get("schedule", "vp")(), al.testing.SPECS[key]
    exact = al.testing.GaussianDenoiser(schedule, 0.5, 0.3)
    blank = al.testing.example(spec)
    x0 = 0.3 * al.Noise.of(0, 4).like(blank)
    joint = elbo(exact, schedule, x0, al.Noise.of(1, 4), samples=3)
    assert joint.dtype == torch.float64 and joint.shape == (4,)
    for i in range(4):
        own = elbo(exact, schedule, alone(x0, i), al.Noise.of(1, [i]), samples=3)
        assert torch.allclose(own, joint[i : i + 1], rtol=1e-10)
    if x0.masks:
        wide = 0.3 * al.Noise.of(0, 4).like(al.testing.example(spec, padded=17))
        assert torch.allclose(elbo(exact, schedule, wide, al.Noise.of(1, 4), samples=3), joint)
    half = elbo(exact, schedule, x0.to(torch.float32), al.Noise.of(1, 4), samples=3)
    assert torch.allclose(half, joint, rtol=1e-4, atol=1e-3)


def test_levels_that_a_schedule_does_not_have_are_errors():
    schedule, (x0, _) = al.get("schedule", "edm")(), one("numbers")
    exact, noise = al.testing.GaussianDenoiser(schedule, 0.0, 1.0), al.Noise.of(0, 1)
    wrong = ({"low": -9.0}, {"low": 3.0, "high": 3.0}, {"high": math.inf}, {"high": -20.0})
    for settings in wrong:
        with pytest.raises(ValueError, match="low="):
            elbo(exact, schedule, x0, noise, **settings)
    with pytest.raises(ValueError, match="samples=0"):
        elbo(exact, schedule, x0, noise, samples=0)
