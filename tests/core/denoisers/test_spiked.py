"""The spiked Gaussian and mixtures, against dense linear algebra."""

import functools
import math

import pytest
import torch

import anylatent as al
from anylatent.core.denoisers import flatten as flat
from tests.core.toys import dense, distance, sizes, spiked, unflat

TIMED = ("video", "text")
STD = 0.4


def problem(key, name="vp", batch=4, **settings):
    schedule, blank = al.get("schedule", name)(), sizes(al.testing.SPECS[key], batch)
    exact, spikes = spiked(schedule, blank, std=STD, **settings)
    x = al.Noise.of(5, batch).like(blank)
    return schedule, exact, x, *dense(exact, spikes, STD, blank)


def times(kind, x):
    count = next(iter(x.parts.values())).shape[1]
    if kind == "one":
        return torch.tensor(0.4, dtype=torch.float64)
    if kind == "sample":
        return torch.linspace(0.05, 0.9, x.batch, dtype=torch.float64)
    t = torch.rand(x.batch, count, generator=torch.Generator().manual_seed(1)).double()
    t[:, 0], t[1, -1] = 0.0, 1.0
    return t


def along(schedule, t, x):
    """alpha and sigma of each number, (B, D)."""
    ones = x.map(torch.ones_like)
    return (flat(c * ones) for c in schedule.coefficients(t))


CASES = [(k, t) for k in al.testing.SPECS for t in ("one", "sample")] + [
    (k, "entry") for k in TIMED
]


@pytest.mark.parametrize("name", ("vp", "flow", "edm"))
@pytest.mark.parametrize(("key", "kind"), CASES)
def test_it_is_the_posterior_mean_of_dense_algebra(key, kind, name):
    """m + C·A·(A·C·A + Σ²)⁻¹·(x - A·m), A and Σ diagonal; the inverse on the subspace."""
    schedule, exact, x, covariance, onto = problem(key, name)
    t = times(kind, x)
    alpha, sigma = along(schedule, t, x)
    mean = flat(exact.centre(x))
    noisy = alpha[:, :, None] * covariance * alpha[:, None] + onto * (sigma**2)[:, None]
    inverse = torch.linalg.pinv(noisy, hermitian=True, rtol=1e-14)
    pull = (inverse @ (flat(x) - alpha * mean)[..., None])[..., 0]
    wanted = mean + (covariance @ (alpha * pull)[..., None])[..., 0]
    assert distance(exact(x, t), unflat(wanted, x)) < 1e-9
    assert distance(exact.score(x, t), unflat(-pull, x)) < 1e-8 * float(pull.abs().max())


@pytest.mark.parametrize(("key", "kind"), CASES)
def test_the_log_density_is_that_of_dense_algebra(key, kind):
    schedule, exact, x, covariance, onto = problem(key)
    t = times(kind, x)
    alpha, sigma = along(schedule, t, x)
    noisy = alpha[:, :, None] * covariance * alpha[:, None] + onto * (sigma**2)[:, None]
    found = exact.log_prob(x, t)
    for i in range(x.batch):
        values, vectors = torch.linalg.eigh(onto[i])
        basis = vectors[:, values > 0.5]  # of the subspace
        assert basis.shape[1] == int(x.dim[i])
        own = basis.T @ noisy[i] @ basis
        gap = basis.T @ (flat(x) - alpha * flat(exact.centre(x)))[i]
        law = torch.distributions.MultivariateNormal(torch.zeros(len(own)).double(), own)
        assert float(found[i]) == pytest.approx(float(law.log_prob(gap)), abs=1e-8)


@pytest.mark.parametrize("key", al.testing.SPECS)
def test_the_plain_gaussian_s_density_is_the_spiked_one_s_without_its_spikes(key):
    schedule, exact, x, _, _ = problem(key)
    small = al.testing.SpikedGaussian(schedule, 0.3, STD, [exact.like], [1e-14])
    plain = al.testing.GaussianDenoiser(schedule, 0.3, STD)
    each = al.testing.GaussianDenoiser(schedule, 0.3, x.map(lambda z: torch.full_like(z, STD)))
    for t in (0.2, torch.linspace(0.1, 0.9, x.batch).double()):
        assert torch.allclose(small.log_prob(x, t), plain.log_prob(x, t), atol=1e-9)
        assert torch.allclose(each.log_prob(x, t), plain.log_prob(x, t), atol=1e-9)


@pytest.mark.parametrize("key", al.testing.SPECS)
def test_the_flow_is_that_of_dense_algebra(key):
    """x_s = α_s·m + Cov_s^½·Cov_t^-½·(x_t - α_t·m), for the two have the same eigenvectors."""
    schedule, exact, x, covariance, onto = problem(key)
    each = torch.linspace(0.5, 0.9, x.batch).double()
    for t, s in ((0.9, 0.2), (0.3, 0.7), (each, 0.1 * each)):
        values, vectors = torch.linalg.eigh(covariance)
        (a, b), (c, d) = (
            (
                k.reshape(-1, 1)
                for k in schedule.coefficients(torch.as_tensor(u, dtype=torch.float64))
            )
            for u in (t, s)
        )
        ratio = ((c**2 * values + d**2) / (a**2 * values + b**2)).sqrt()
        mean = flat(exact.centre(x))
        turned = vectors.mT @ (flat(x) - a * mean)[..., None]
        wanted = c * mean + (vectors @ (ratio[..., None] * turned))[..., 0]
        assert distance(exact.flow(x, t, s), unflat(wanted, x)) < 1e-10
    if key in TIMED:
        with pytest.raises(ValueError, match="closed form"):
            exact.flow(x, times("entry", x), 0.0)


def test_its_draws_have_its_covariance():
    """20,000 draws of 24 numbers: each entry of the covariance to 5 standard errors."""
    spec, count = al.LatentSpec({"z": al.Field((4, 6))}), 20000
    blank = spec.blank(count, dtype=torch.float64)
    exact, spikes = spiked(al.get("schedule", "vp")(), spec.blank(1, dtype=torch.float64), std=STD)
    covariance, _ = dense(exact, spikes, STD, spec.blank(1, dtype=torch.float64))
    drawn = flat(exact.draw(al.Noise.of(0, count), blank)) - 0.3
    found = drawn.T @ drawn / count
    width = covariance[0].diagonal()
    error = ((width[:, None] * width + covariance[0] ** 2) / count).sqrt()
    assert float(((found - covariance[0]).abs() / error).max()) < 5
    assert float((drawn.mean(0).abs() / (width / count).sqrt()).max()) < 5


@pytest.mark.parametrize("key", ("video", "text", "molecule"))
def test_the_posterior_of_a_mask_is_the_schur_complement(key):
    """With std = 0 what is seen is exact; points of a centred field are seen in `h` alone."""
    _, exact, x, covariance, _ = problem(key)
    name = "h" if key == "molecule" else "z"
    seen = torch.zeros_like(x[name], dtype=torch.bool)
    seen[:, 0] = True
    measure = lambda v: v.map(torch.zeros_like).replace(**{name: torch.where(seen, v[name], 0)})  # noqa: E731
    mean, spread = exact.posterior(measure, measure(x), 0.0, x)
    picked = (
        flat(x.map(torch.zeros_like).replace(**{name: seen.to(x[name])}).map(lambda z: z))[0] > 0
    )
    centre = flat(exact.centre(x))
    c_uk, c_kk = covariance[:, :, picked], covariance[:, picked][:, :, picked]
    gain = c_uk @ torch.linalg.inv(c_kk)
    gap = (flat(x) - centre)[:, picked]
    assert torch.allclose(flat(mean), centre + (gain @ gap[..., None])[..., 0], atol=1e-10)
    assert torch.allclose(spread, covariance - gain @ c_uk.mT, atol=1e-10)
    assert torch.allclose(flat(mean)[:, picked], flat(x)[:, picked], atol=1e-10)


def test_the_posterior_of_a_noisy_measurement_is_that_of_precisions():
    """(C⁻¹ + HᵀH/std²)⁻¹ and its mean, for H the means of pairs of frames and channels."""
    _, exact, x, covariance, _ = problem("video")

    def measure(v):
        z = v["z"]
        return al.LatentSpec({"y": al.Field((4, 4))}).wrap({"y": (z[:, 0] + 2 * z[:, 2]).mean(1)})

    y = measure(al.Noise.of(8, 4).like(x))
    mean, spread = exact.posterior(measure, y, 0.2, x)
    h = torch.stack([flat(measure(unflat(row, x)))[0] for row in torch.eye(96).double()], -1)
    precision = torch.linalg.inv(covariance) + h.T @ h / 0.2**2
    gap = flat(y) - flat(exact.centre(x)) @ h.T
    moved = torch.linalg.solve(precision, (gap @ h / 0.2**2)[..., None])[..., 0]
    assert torch.allclose(spread, torch.linalg.inv(precision), atol=1e-10)
    assert torch.allclose(flat(mean), flat(exact.centre(x)) + moved, atol=1e-10)


@pytest.mark.parametrize("key", TIMED)
def test_an_entry_at_time_0_is_seen_and_one_at_time_1_is_not(key):
    """On `flow` α(1) = 0: x0 is then the posterior mean given the first entry alone."""
    schedule, exact, x, _, _ = problem(key, "flow")
    t = torch.ones(x["z"].shape[:2], dtype=torch.float64)
    t[:, 0] = 0
    seen = (t == 0)[..., *[None] * (x["z"].ndim - 2)]
    measure = lambda v: v.replace(z=torch.where(seen, v["z"], 0))  # noqa: E731
    mean, _ = exact.posterior(measure, measure(x), 0.0, x)
    assert distance(exact(x, t), mean) < 1e-9


@pytest.mark.parametrize("key", al.testing.SPECS)
@pytest.mark.parametrize("schedule", ("vp", "flow", "edm"))
def test_it_is_a_denoiser(key, schedule):
    spec, part = al.testing.SPECS[key], al.get("schedule", schedule)()
    exact, _ = spiked(part, al.testing.example(spec))
    al.testing.check_denoiser(exact, spec)
    assert exact.entry_times == (key in TIMED)


def test_spikes_must_be_unit_vectors_of_the_subspace():
    schedule, blank = al.get("schedule", "vp")(), sizes(al.testing.SPECS["molecule"], 4)
    spike = al.Noise.of(0, 4).like(blank)
    make = functools.partial(al.testing.SpikedGaussian, schedule, 0.0)
    with pytest.raises(ValueError, match="unit vector"):
        make(0.3, [spike], [1.0])
    off = spike.map(lambda z: z + 1)
    with pytest.raises(ValueError, match="unit vector"):
        make(0.3, [off / off.norm()], [1.0])
    unit = spike / spike.norm()
    for std, spikes, variances in ((0.0, [unit], [1.0]), (0.3, [unit], [-1.0]), (0.3, [unit], [])):
        with pytest.raises(ValueError, match="positive variance"):
            make(std, spikes, variances)


# ---- mixtures ---------------------------------------------------------------------------------
def mixture(schedule, blank):
    parts = [
        spiked(schedule, blank, mean=m, std=s, seed=k)
        for k, (m, s) in enumerate(((-0.5, 0.3), (0.6, 0.7)))
    ]
    weights = [0.3, 0.7]
    return al.testing.MixtureDenoiser.of([part for part, _ in parts], weights), parts, weights


@pytest.mark.parametrize(
    ("key", "kind"), [("image", "one"), ("text", "sample"), ("video", "entry")]
)
def test_a_mixture_of_spiked_gaussians_is_bayes(key, kind):
    """Responsibilities ∝ w_k·N(x; α·m_k, A·C_k·A + Σ²), by dense algebra on valid numbers."""
    schedule, blank = al.get("schedule", "vp")(), sizes(al.testing.SPECS[key], 3)
    found, parts, weights = mixture(schedule, blank)
    x = 0.5 * al.Noise.of(5, 3).like(blank)
    t = times(kind, x)
    alpha, sigma = along(schedule, t, x)
    logs = []
    for (part, spikes), weight, std in zip(parts, weights, (0.3, 0.7), strict=True):
        covariance, onto = dense(part, spikes, std, blank)
        noisy = alpha[:, :, None] * covariance * alpha[:, None] + onto * (sigma**2)[:, None]
        own = []
        for i in range(3):
            valid = onto[i].diagonal() > 0.5
            law = torch.distributions.MultivariateNormal(
                (alpha * flat(part.centre(x)))[i, valid], noisy[i, valid][:, valid]
            )
            own.append(law.log_prob(flat(x)[i, valid]) + math.log(weight))
        logs.append(torch.stack(own))
    logs = torch.stack(logs, -1)
    assert torch.allclose(found.responsibilities(x, t), logs.softmax(-1), atol=1e-6)
    assert torch.allclose(found.log_prob(x, t), logs.logsumexp(-1), atol=1e-6)
    shares = logs.softmax(-1).unbind(-1)
    wanted = al.combine(*((w, part(x, t)) for w, (part, _) in zip(shares, parts, strict=True)))
    assert distance(found(x, t), wanted) < 1e-6  # its weights are float32


def test_a_width_for_each_component_is_bayes_by_quadrature():
    schedule, spec = al.get("schedule", "vp")(), al.LatentSpec({"z": al.Field((1,))})
    means = [spec.wrap({"z": torch.tensor([[m]]).double()}) for m in (-1.0, 1.0)]
    exact = al.testing.MixtureDenoiser(schedule, means, [0.2, 0.6], [1.0, 3.0])
    x = spec.wrap({"z": torch.tensor([[0.1]]).double()})
    x0 = torch.linspace(-8, 8, 40001, dtype=torch.float64)
    for t in (0.2, 0.5, 0.8):
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        prior = 0.25 * torch.exp(-0.5 * ((x0 + 1) / 0.2) ** 2) / 0.2
        prior = prior + 0.75 * torch.exp(-0.5 * ((x0 - 1) / 0.6) ** 2) / 0.6
        weight = prior * torch.exp(-0.5 * ((0.1 - alpha * x0) / sigma) ** 2)
        wanted = float((weight * x0).sum() / weight.sum())
        assert float(exact(x, t)["z"]) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("key", TIMED)
def test_a_mixture_with_spikes_is_a_denoiser(key):
    spec = al.testing.SPECS[key]
    found, _, _ = mixture(al.get("schedule", "vp")(), al.testing.example(spec))
    al.testing.check_denoiser(found, spec)
