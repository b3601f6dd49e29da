"""Likelihoods by both measures, and of data through an autoencoder, against closed forms."""

import math
from types import SimpleNamespace

import pytest
import torch

import anylatent as al
from anylatent.core.autoencoders.scale_mixture import of_any_scale
from anylatent.core.guidance import ClassifierFree
from anylatent.core.latents.normaliser import Normaliser
from anylatent.core.latents.posterior import Posterior
from anylatent.core.likelihood.measures import Elbo, Flow
from anylatent.core.reports.likelihood import DataLikelihood
from anylatent.core.testing.denoisers import ConditionalGaussian
from tests.core.densities import mixture, normal, typical
from tests.core.toys import alone, distance

SPACES = {
    "numbers": (al.LatentSpec({"z": al.Field((3,))}), None),
    "molecule": (al.testing.SPECS["molecule"], 4),
}


def spread(values):
    """Four standard errors of the mean."""
    return 4 * float(values.std()) / len(values) ** 0.5


# ---- measures ---------------------------------------------------------------------------------
@pytest.mark.parametrize("key", SPACES)
def test_both_measure_a_mixture(key):
    """The flow tells log p(y), the bound its mean, in a centred and padded space too."""
    schedule, (spec, length), count = al.get("schedule", "flow")(), SPACES[key], 1000
    sizes = {} if length is None else {"lengths": [length] * count}
    exact, means, log_density = mixture(schedule, spec, lengths=length and [length])
    x0 = typical(means, 0.3, count, **sizes)
    few, rho = x0.select(slice(8)), math.exp(-4)
    nats, y = Flow(exact=True, steps=24).nats(exact, schedule, few, al.Noise.of(1, 8))
    assert torch.allclose(nats, -log_density(y, rho), atol=0.02)
    assert 0.5 * rho < float((y - few).norm().mean()) / float(y.dim[0]) ** 0.5 < 1.5 * rho
    bound, y = Elbo(draws=8).nats(exact, schedule, x0, al.Noise.of(2, count))
    assert float((y - x0).norm().square().mean() / y.dim[0]) == pytest.approx(rho**2, rel=0.1)
    gap = bound + log_density(y, rho)
    assert abs(float(gap.mean())) < spread(gap) < 1.5


@pytest.mark.parametrize("key", SPACES)
@pytest.mark.parametrize("error", (0.0, 0.2, 0.5))
def test_the_bound_is_never_better_than_the_likelihood(key, error):
    """-ELBO <= log p on average over the mixture's data, whatever the denoiser; less the worse."""
    schedule, (spec, length), count = al.get("schedule", "cosine")(), SPACES[key], 1000
    sizes = {} if length is None else {"lengths": [length] * count}
    exact, means, log_density = mixture(schedule, spec, lengths=length and [length])
    x0 = typical(means, 0.3, count, **sizes)
    shift = al.Noise.of(9, 1).like(means[0])
    shift = error * x0.map(lambda x, e: e.expand_as(x), shift)
    wrong = lambda x, t: exact(x, t) + schedule.sigma(t) * shift  # noqa: E731
    bound, y = Elbo(draws=8, log_snr=6.0).nats(wrong, schedule, x0, al.Noise.of(2, count))
    gap = bound + log_density(y, math.exp(-3))
    assert float(gap.mean()) > -spread(gap)
    assert (float(gap.mean()) > spread(gap)) == (error > 0)


@pytest.mark.parametrize("measure", (Flow(steps=12), Flow(steps=None), Elbo(draws=4)))
def test_neither_neighbours_nor_padding(measure):
    schedule, spec = al.get("schedule", "vp")(), al.testing.SPECS["molecule"]
    exact = al.testing.GaussianDenoiser(schedule, 0.5, 0.3)
    x0, wide = (
        0.3 * al.Noise.of(0, 4).like(al.testing.example(spec, padded=p)) for p in (None, 17)
    )
    joint, y = measure.nats(exact, schedule, x0, al.Noise.of(1, 4))
    assert joint.dtype == torch.float64
    assert torch.allclose(measure.nats(exact, schedule, wide, al.Noise.of(1, 4))[0], joint)
    for i in range(4):
        own, at = measure.nats(exact, schedule, alone(x0, i), al.Noise.of(1, [i]))
        assert torch.allclose(own, joint[i : i + 1]) and distance(at, alone(y, i)) < 1e-12


def test_a_level_is_kept_where_it_is_asked_for():
    assert Flow().level == 8 and Flow().at(6.0).level == 6 and Flow(log_snr=3.0).at(6.0).level == 3
    assert Elbo(log_snr=6.0).rho == pytest.approx(math.exp(-3))


# ---- entropies --------------------------------------------------------------------------------
@pytest.mark.parametrize("key", SPACES)
@pytest.mark.parametrize("extra", (0.0, 0.2))
def test_the_entropy_of_a_posterior(key, extra):
    """That of a Gaussian of std √(s² + extra²): its degrees of freedom times ½ log 2πe(s² + ...)"""
    spec, length = SPACES[key]
    blank = spec.blank(2, length and [length, 2], dtype=torch.float64)
    log_std = blank.map(lambda x: torch.full_like(x, math.log(0.3)))
    found = Posterior(blank, log_std).entropy(extra)
    each = 0.5 * math.log(2 * math.pi * math.e * (0.09 + extra**2))
    assert torch.allclose(found, each * blank.dim.double())
    point = Posterior(blank).entropy(0.2)
    assert torch.allclose(point, 0.5 * math.log(2 * math.pi * math.e * 0.04) * blank.dim.double())
    with pytest.raises(ValueError, match="point mass"):
        Posterior(blank).entropy()


# ---- through an autoencoder -------------------------------------------------------------------
PRIOR, NOISE, SHIFT, SCALE = 0.8, 0.5, 2.0, 3.0


class Linear(al.Autoencoder):
    """z ~ N(shift, (scale·PRIOR)²), x | z ~ N(z, NOISE²): its encoder is the exact posterior.

    `blur` widens the posterior, which then is a worse one.
    """

    def __init__(self, blur=1.0):
        super().__init__()
        self.spec, self.blur = al.LatentSpec({"z": al.Field((3,))}), blur
        prior = (SCALE * PRIOR) ** 2
        self.variance = 1 / (1 / prior + 1 / NOISE**2)

    def encode(self, batch):
        x = batch["x"]
        mean = self.variance * (SHIFT / (SCALE * PRIOR) ** 2 + x / NOISE**2)
        log_std = torch.full_like(mean, 0.5 * math.log(self.variance) + math.log(self.blur))
        return Posterior(self.spec.wrap({"z": mean}), self.spec.wrap({"z": log_std}))

    def decode(self, z):
        return z["z"]

    def loss(self, batch, noise, step):
        return {}, None

    def log_prob(self, batch, z):
        law = torch.distributions.Normal(z["z"], torch.tensor(NOISE, dtype=torch.float64))
        return law.log_prob(batch["x"]).sum(1)


class Quarter(al.FixedSizes):
    def nats(self, x0):
        return torch.full((x0.batch,), 0.25)


class Unit:
    sizes = Quarter()

    def unit(self, batch):
        return "number", torch.full((len(batch["x"]),), 3)


class Exact(al.Generator):
    """The law of normalised latents that a denoiser knows."""

    def __init__(self, spec, denoiser):
        super().__init__()
        self.spec, self.denoiser, self.seen = spec, denoiser, []

    def loss(self, x0, cond, noise):
        raise NotImplementedError

    sample = loss

    def nats(self, x0, cond, noise, measure, guidance=None):
        self.seen.append((cond, guidance))
        denoiser = self.denoiser if guidance is None else guidance(self.denoiser, noise)
        return measure.nats(lambda x, t: denoiser(x, t, cond), denoiser.schedule, x0, noise)


def system(blur=1.0):
    autoencoder = Linear(blur)
    normaliser = Normaliser(autoencoder.spec).double()
    prior = al.testing.GaussianDenoiser(al.get("schedule", "flow")(), 0.0, PRIOR)
    normaliser.shift_z.fill_(SHIFT)
    normaliser.scale_z.fill_(SCALE)
    return SimpleNamespace(
        autoencoder=autoencoder,
        normaliser=normaliser,
        generator=Exact(autoencoder.spec, prior),
        modality=Unit(),
        condition=lambda columns: al.Condition(columns) if columns else None,
    )


def batches(count):
    """Draws of x ~ N(SHIFT, (SCALE·PRIOR)² + NOISE²), in batches."""
    std = math.sqrt((SCALE * PRIOR) ** 2 + NOISE**2)
    x = SHIFT + std * al.Noise.of(4, count).normal(3).double()
    truth = 0.5 * ((x - SHIFT) / std) ** 2 + math.log(std) + 0.5 * math.log(2 * math.pi)
    half = count // 2
    return [{"x": x[:half]}, {"x": x[half:]}], truth.sum(1) + 0.25


@pytest.mark.parametrize("measure", (Flow(steps=12, exact=True), Elbo(draws=16)))
def test_the_bound_is_met_by_an_exact_posterior(measure):
    """Normalised by a scale and a shift, which the bound must not see; sizes are counted."""
    data, truth = batches(240 if isinstance(measure, Flow) else 4000)
    found = DataLikelihood(system(), measure, ()).figures(data, 0)
    assert found["bound_nats"] == pytest.approx(float(truth.mean()), abs=0.12)
    assert found["bound_nats_per_number"] == pytest.approx(found["bound_nats"] / 3)
    bits = found["bound_nats_per_number"] / math.log(2)
    assert found["bound_bits_per_number"] == pytest.approx(bits)
    assert 0 < found["bound_bits_per_number_error"] < 0.2
    entropy = 3 * (0.5 * math.log(2 * math.pi * math.e) + 0.5 * math.log(PRIOR**2))
    assert found["latent_nll_nats"] == pytest.approx(entropy, abs=0.4)
    rate = found["latent_nll_nats"] / 3 / math.log(2)
    assert found["latent_bits_per_dimension"] == pytest.approx(rate)


def test_a_worse_posterior_costs_its_divergence():
    """KL(N(m, (b·s)²) | N(m, s²)) = 3·((b² - 1)/2 - log b)."""
    data, _ = batches(4000)
    figures = [
        DataLikelihood(system(blur), Elbo(draws=16), ()).figures(data, 0)["bound_nats"]
        for blur in (1.0, 2.0)
    ]
    assert figures[1] - figures[0] == pytest.approx(3 * (1.5 - math.log(2)), abs=0.1)


def test_a_decoder_that_is_no_law_has_latents_only():
    model = system()
    model.autoencoder.log_prob = lambda batch, z: None
    found = DataLikelihood(model, Elbo(draws=2), ()).figures(batches(4)[0], 0)
    assert set(found) == {"latent_nll_nats", "latent_bits_per_dimension"}


def test_guidance_and_conditions_reach_the_denoiser():
    """Guided towards a condition c by s: the law is N(s·c, .3²)."""
    model = system()
    model.generator.denoiser = ConditionalGaussian(model.generator.denoiser.schedule)
    model.autoencoder.log_prob = lambda batch, z: None
    guide = lambda denoiser, noise: ClassifierFree(denoiser, 3.0)  # noqa: E731
    z = 1.5 + 0.3 * al.Noise.of(0, 200).like(model.autoencoder.spec.blank(200))["z"].double()
    model.autoencoder.encode = lambda batch: Posterior(
        model.normaliser.decode(model.autoencoder.spec.wrap({"z": z}))
    )
    data = [{"x": z, "mean": torch.full((200,), 0.5), "other": torch.ones(200)}]
    part = DataLikelihood(model, Flow(steps=16), ("mean", "absent"), guide)
    found = part.figures(data, 0)["latent_nll_nats"]
    wanted = -normal(al.Latent({"z": z}, {}, part.system.autoencoder.spec),
                     al.Latent({"z": torch.full_like(z, 1.5)}, {}, model.autoencoder.spec),
                     0.09)  # fmt: skip
    assert found == pytest.approx(float(wanted.mean()), abs=0.02)
    (cond, guidance), *_ = model.generator.seen
    assert list(cond.values) == ["mean"] and guidance is guide


# ---- scales -----------------------------------------------------------------------------------
def test_an_unknown_scale_costs_little_and_nothing_is_above_one():
    x = 0.02 * al.Noise.of(0, 4).normal(500).double()
    law = lambda s: torch.distributions.Normal(0.0, s).log_prob(x).sum(1)  # noqa: E731
    found, best = of_any_scale(law), torch.stack([law(2 ** (-k / 2)) for k in range(25)]).amax(0)
    assert bool((found <= best).all()) and bool((found >= best - math.log(25)).all())
    one = lambda s: torch.distributions.Normal(0.0, s).log_prob(x[:, 0])  # noqa: E731
    direct = torch.stack([one(2 ** (-k / 2)).exp() for k in range(25)]).mean(0).log()
    assert torch.allclose(of_any_scale(one), direct)
