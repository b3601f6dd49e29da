"""Score interpolation: Bayes' posterior over a toy vocabulary, and a learned backbone around it."""

import math

import pytest
import torch
from torch import nn

import anylatent as al
from anylatent.core.denoisers.base import Recalling
from anylatent.core.denoisers.score_interpolation import ScoreInterpolation
from anylatent.core.latents.codebook import Codebook
from anylatent.core.latents.condition import Condition, ConditionSpec
from anylatent.core.nn.backbone import Backbone
from tests.core.toys import alone, distance

WIDTH, SIZE = 4, 5
SPEC = al.LatentSpec({"z": al.Field((None, WIDTH))})
LENGTHS = [3, 6, 1, 4]


def table():
    draw = torch.randn(SIZE, WIDTH, generator=torch.Generator().manual_seed(1)).double()
    return draw / draw.norm(dim=1, keepdim=True) * WIDTH**0.5


VECTORS = table()
BOOK = Codebook(SPEC, lambda: VECTORS)


class Logits(Backbone):
    """log-frequencies of the tokens, whatever the input; it keeps what it was shown."""

    def __init__(self, output, maps, frequencies=None):
        super().__init__()
        self.spec, self.conditions, self.output = SPEC, ConditionSpec(maps=maps), output
        start = torch.zeros(SIZE) if frequencies is None else frequencies.log()
        self.bias = nn.Parameter(start.double())
        self.weight = 0.0  # on all that it is shown beside x

    def forward(self, x, c_noise, cond=None):
        self.seen = cond
        z = x["z"]
        shown = sum(value.sum(-1, keepdim=True) for value in cond.values.values())
        out = self.bias.to(z.dtype) + self.weight * shown * torch.arange(SIZE)
        return al.Latent({"z": out}, x.masks, self.output)


def denoiser(schedule="vp", frequencies=None):
    network = lambda output=None, maps=None: Logits(output, maps or {}, frequencies)  # noqa: E731
    told = al.get("objective", "score_interpolation")(masking=al.get("masking", "prefix")())
    return ScoreInterpolation(network, al.get("schedule", schedule)(), BOOK, told.tells)


def noisy(seed=0, dtype=torch.float64):
    return al.Noise.of(seed, 4).like(SPEC.blank(4, LENGTHS, dtype=dtype))


@pytest.mark.parametrize("schedule", al.names("schedule"))
def test_it_is_bayes_posterior_mean(schedule):
    """Against densities of a mixture of points, written out, for tokens of unequal frequency."""
    frequencies = torch.tensor([0.1, 0.4, 0.2, 0.25, 0.05]).double()
    part = denoiser(schedule, frequencies)
    for t in (0.05, 0.3, 0.6, 0.95):
        alpha, sigma = part.schedule.alpha(t), part.schedule.sigma(t)
        x = alpha * BOOK.latent(torch.arange(24).view(4, 6) % SIZE, noisy().masks["z"])
        x = x + sigma * noisy()
        gap = x["z"][:, :, None] - alpha * VECTORS
        weight = frequencies.log() - gap.square().sum(-1) / (2 * sigma**2)
        wanted = x.replace(z=weight.softmax(-1) @ VECTORS)
        assert distance(part(x, t), wanted) < 1e-8


@pytest.mark.parametrize("schedule", al.names("schedule"))
def test_it_is_a_denoiser(schedule):
    al.testing.check_denoiser(denoiser(schedule), SPEC)


def test_rounding_exact_vectors_is_the_identity_and_padding_is_zero():
    mask = noisy().masks["z"]
    tokens = (torch.arange(24).view(4, 6) % SIZE).masked_fill(~mask, 0)
    for factor in (1.0, 0.6):  # nearest after shrinking too, as the rows have one norm
        assert torch.equal(BOOK.tokens(factor * BOOK.latent(tokens, mask)), tokens)


def test_a_codebook_refuses_other_latents():
    with pytest.raises(ValueError, match="one field"):
        Codebook(al.testing.SPECS["molecule"], lambda: VECTORS)
    with pytest.raises(ValueError, match="vectors of 4"):
        Codebook(al.LatentSpec({"z": al.Field((None, 3))}), lambda: VECTORS)


def test_any_solver_samples_tokens():
    """From points of the table, samples are such points, as often as they should be."""
    frequencies = torch.tensor([0.1, 0.4, 0.2, 0.25, 0.05]).double()
    part, count = denoiser("cosine", frequencies), 800
    blank = SPEC.blank(count, [1] * count, dtype=torch.double)
    for name in ("heun", "ddpm"):
        times, noise = al.get("grid", "log_snr")()(part.schedule, 60), al.Noise.of(0, count)
        start = part.schedule.sigma(1.0) * noise.like(blank)
        z = al.solve(al.get("solver", name)(), part.bind(None), part.schedule, start, times, noise)
        tokens = BOOK.tokens(z)
        assert distance(z, BOOK.latent(tokens, z.masks["z"])) < 1e-3
        share = torch.bincount(tokens[:, 0], minlength=SIZE) / count
        assert float((share - frequencies).abs().max()) < 5 * (0.25 / count) ** 0.5


def test_it_recalls_its_last_estimate_and_guidance_hands_it_on():
    part, x = denoiser(), noisy()
    for outer in (part, al.get("guidance", "classifier_free")(part, scale=3.0)):
        bound = outer.bind(Condition())
        assert isinstance(bound, Recalling)
        first = bound(x, torch.tensor(0.6))
        assert float(part.backbone.seen.values["estimate"].abs().max()) == 0
        bound(x, torch.tensor(0.5))
        assert torch.equal(part.backbone.seen.values["estimate"], first["z"])


def test_given_entries_are_shown_clean():
    part, x0 = denoiser("edm"), BOOK.latent(torch.ones(4, 6, dtype=torch.long), noisy().masks["z"])
    given = torch.zeros(4, 6, 1, dtype=torch.double)
    given[:, 0] = 1
    x = 50 * noisy()
    x["z"][:, 0] = x0["z"][:, 0]
    part(x, torch.tensor(0.9), Condition().fixed(given=given))
    seen = part.backbone.seen.values
    assert torch.equal(seen["evidence"][:, 0], x0["z"][:, 0])
    assert torch.equal(seen["given"], given) and seen["evidence"][0, 1].norm() < 2


class TestObjective:
    def loss(self, part, noise, **settings):
        objective = al.get("objective", "score_interpolation")(**settings).eval()
        x0 = BOOK.latent(torch.arange(24).view(4, 6) % SIZE, noisy().masks["z"])
        return objective, x0, objective(part, x0, None, noise)

    def test_at_pure_noise_it_is_the_entropy_and_near_data_nothing(self):
        part = denoiser("edm")
        for level, wanted in ((-8.0, math.log(SIZE)), (8.0, 0.0)):
            times = al.get("times", "uniform")()
            t = part.schedule.time(torch.tensor(level, dtype=torch.float64))
            times.quantile = lambda u, schedule, t=t: t.expand(u.shape)
            _, _, loss = self.loss(part, al.Noise.of(0, 4), times=times)
            assert torch.allclose(loss, torch.tensor(wanted).to(loss), atol=0.05)

    def test_neighbours_and_padding_change_nothing(self):
        part = denoiser()
        part.backbone.weight = 0.1
        masking = al.get("masking", "mixed")(free=0.3)
        for recall in (0.0, 1.0):
            objective, x0, joint = self.loss(
                part, al.Noise.of(3, 4), recall=recall, masking=masking
            )
            for i in range(4):
                own = objective(part, alone(x0, i), None, al.Noise.of(3, [i]))
                assert torch.allclose(own, joint[i : i + 1], atol=1e-9)

    def test_what_is_given_costs_nothing(self):
        class All(al.get("masking", "prefix")):
            def __call__(self, valid, noise):
                return valid

        _, _, loss = self.loss(denoiser(), al.Noise.of(0, 4), masking=All())
        assert float(loss.abs().max()) == 0

    def test_gradient_reaches_the_table_and_the_backbone(self):
        vectors = VECTORS.clone().requires_grad_()
        book = Codebook(SPEC, lambda: vectors)
        network = lambda output=None, maps=None: Logits(output, maps or {})  # noqa: E731
        part = ScoreInterpolation(network, al.get("schedule", "vp")(), book)
        x0 = book.latent(torch.arange(24).view(4, 6) % SIZE, noisy().masks["z"])
        objective = al.get("objective", "score_interpolation")()
        objective(part, x0, None, al.Noise.of(0, 4)).sum().backward()
        assert float(vectors.grad.abs().max()) > 0
        assert float(part.backbone.bias.grad.abs().max()) > 0

    def test_another_denoiser_is_an_error(self):
        exact = al.testing.GaussianDenoiser(al.get("schedule", "vp")(), 0.0, 1.0)
        with pytest.raises(ValueError, match="denoiser=score_interpolation"):
            al.get("objective", "score_interpolation")()(exact, noisy(), None, al.Noise.of(0, 4))

    def test_an_estimate_of_what_is_given_is_what_is_given(self):
        """As in sampling, where the estimate is that of the completion."""

        class First(al.get("masking", "prefix")):
            def __call__(self, valid, noise):
                return valid & (torch.arange(valid.shape[1]) == 0)

        part = denoiser("edm")
        _, x0, _ = self.loss(part, al.Noise.of(0, 4), masking=First(), recall=1.0)
        estimate = part.backbone.seen.values["estimate"]
        assert torch.equal(estimate[:, 0], x0["z"][:, 0])
        assert not torch.equal(estimate[0, 1], x0["z"][0, 1])


@pytest.mark.parametrize("schedule", ["vp", "edm", "flow"])
def test_the_bound_of_independent_tokens_is_their_entropy(schedule):
    """Met by the exact denoiser, to 4 standard errors; another temperature is no better."""
    count, part = 400, denoiser(schedule)
    generator = al.get("generator", "diffusion")(part, al.get("objective", "score_interpolation")())
    tokens = (al.Noise.of(5, count).uniform(3) * SIZE).long()
    mask = torch.ones(count, 3, dtype=torch.bool)
    x0, noise = BOOK.latent(tokens, mask), al.Noise.of(1, count)
    nats = generator.bound(x0, None, noise, BOOK) / 3
    error = float(nats.std()) / count**0.5
    assert float(nats.mean()) == pytest.approx(math.log(SIZE), abs=4 * error)
    other = al.Diffusion(part.tempered(0.5), al.get("objective", "score_interpolation")())
    worse = other.bound(x0, None, al.Noise.of(1, count), BOOK) / 3
    assert part.temperature == 1
    assert float(worse.mean()) > math.log(SIZE) + 2 * error


def test_vectors_of_unequal_length_are_weighed_by_bayes_too():
    """As learned tables have: the evidence for a long vector is held back by its length."""
    vectors = VECTORS * torch.linspace(0.5, 2, SIZE).double()[:, None]
    network = lambda output=None, maps=None: Logits(output, maps or {})  # noqa: E731
    schedule = al.get("schedule", "vp")()
    part = ScoreInterpolation(network, schedule, Codebook(SPEC, lambda: vectors))
    x, t = noisy(), 0.4
    gap = x["z"][:, :, None] - schedule.alpha(t) * vectors
    weight = -gap.square().sum(-1) / (2 * schedule.sigma(t) ** 2)
    assert distance(part(x, t), x.replace(z=weight.softmax(-1) @ vectors)) < 1e-8


@pytest.mark.parametrize("batch", (1, 4))
def test_times_of_entries_are_those_of_each_token(batch):
    """The evidence of each token at its own noise level; for B = 1 and L times too."""
    part, x = denoiser(), noisy().select(slice(batch))
    count = x["z"].shape[1]
    t = torch.linspace(0.1, 0.9, batch * count).double().view(batch, count)
    found = part(x, t)
    for k in range(count):
        alone = part(x, t[:, k])["z"][:, k]
        assert torch.allclose(found["z"][:, k], alone, atol=1e-12)
