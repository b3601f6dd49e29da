"""Tables of embeddings: exact round trips, norms, gradients, and what holds a table."""

import math

import pytest
import torch
from torch.nn.functional import one_hot

import anylatent as al
from anylatent.core.latents.noise import Noise
from anylatent.modalities.text.autoencoder import (
    LearnedEmbedding,
    UnitEmbedding,
    spread,
    token_nats,
)
from anylatent.modalities.text.tokenizer import Symbols

KINDS = [UnitEmbedding, LearnedEmbedding]
LENGTHS = torch.tensor([6, 2, 4])
MASK = torch.arange(6) < LENGTHS[:, None]


@pytest.fixture(autouse=True)
def seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def batch(vocabulary=32):
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(vocabulary, MASK.shape, generator=generator) * MASK
    return {"tokens": tokens, "mask": MASK, "length": LENGTHS}


def learn(autoencoder, terms, steps=100, rate=0.05):
    """Adam on the sum of the terms that a function of the step returns."""
    chosen = [p for p in autoencoder.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(chosen, lr=rate)
    for step in range(steps):
        loss = torch.stack([term.mean() for term in terms(step)]).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_contract(kind, learned):
    al.testing.check_autoencoder(kind(learned=learned), batch())


@pytest.mark.parametrize(("vocabulary", "channels"), [(5, 64), (300, 16), (40, 40)])
@pytest.mark.parametrize("kind", KINDS)
def test_rounding_exact_embeddings_is_the_identity(kind, vocabulary, channels):
    autoencoder = kind(vocabulary, channels=channels)
    everything = torch.arange(vocabulary)[None]
    whole = {"tokens": everything, "mask": torch.ones_like(everything, dtype=torch.bool)}
    for given in (whole, batch(vocabulary)):
        texts = autoencoder.decode(autoencoder.encode(given).mean)
        for text, tokens, mask in zip(texts, given["tokens"], given["mask"], strict=True):
            assert torch.equal(text.tokens, tokens[mask])
            assert text.text == " ".join(str(int(token)) for token in tokens[mask])


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_is_to_the_nearest_vector(kind):
    autoencoder, given = kind(20, channels=4), batch(20)
    if kind is LearnedEmbedding:  # vectors of unequal length, where a product is no distance
        autoencoder.table.data.mul_(torch.rand(20, 1) + 0.3)
    z = autoencoder.encode(given).mean
    z = z + 1.5 * Noise.of(0, 3).like(z)
    vectors = autoencoder.codebook().vectors()
    nearest = torch.cdist(z["z"], vectors[None]).argmin(-1)
    assert not torch.equal(nearest[MASK], given["tokens"][MASK])
    texts = autoencoder.decode(z)
    assert torch.equal(torch.cat([text.tokens for text in texts]), nearest[MASK])


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_said_by_the_tokenizer_of_the_run(kind):
    tokenizer = Symbols(["C", "N", "Cl", "(", ")"])
    autoencoder = kind(5, tokenizer.to_json())
    tokens = torch.tensor([[0, 3, 2, 4, 1], [0, 2, 0, 0, 0]])
    mask = torch.arange(5) < torch.tensor([[5], [2]])
    texts = autoencoder.decode(autoencoder.encode({"tokens": tokens, "mask": mask}).mean)
    assert texts.strings == ["C(Cl)N", "CCl"]
    with pytest.raises(ValueError, match="5 tokens for a vocabulary of 6"):
        kind(6, tokenizer.to_json())


@pytest.mark.parametrize("kind", KINDS)
def test_the_generators_gradient_reaches_the_rows_of_the_tokens_it_saw(kind):
    autoencoder, given = kind(), batch()
    z = autoencoder.encode(given).sample(Noise.of(0, 3))
    z.dot(Noise.of(1, 3).like(z)).sum().backward()
    seen = one_hot(given["tokens"][MASK], 32).any(0)
    assert torch.equal(autoencoder.table.grad.any(-1), seen)


@pytest.mark.parametrize("kind", KINDS)
def test_a_codebook_follows_the_table_and_is_saved_with_no_one_else(kind):
    autoencoder = kind()
    codebook = autoencoder.codebook()
    assert codebook.size == 32 and codebook.spec == autoencoder.spec
    before = codebook.vectors().detach().clone()
    autoencoder.table.data[3] = torch.randn(64)
    changed = (codebook.vectors() != before).any(-1)
    assert torch.equal(changed, torch.arange(32) == 3)
    assert not autoencoder.alone


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_table_has_nothing_to_learn_and_still_rounds(kind):
    autoencoder = kind(learned=False)
    assert not any(p.requires_grad for p in autoencoder.parameters())
    assert "table" in autoencoder.state_dict()  # it is drawn at random, so a run must keep it
    texts = autoencoder.decode(autoencoder.encode(batch()).mean)
    assert torch.equal(texts[1].tokens, batch()["tokens"][1, :2])


def test_rows_start_orthogonal_where_there_is_room_and_spread_where_there_is_none():
    few = spread(20, 64).double()
    assert torch.allclose(few @ few.T, 64 * torch.eye(20).double(), atol=1e-3)
    many = spread(400, 16).double()
    assert torch.allclose(many.square().mean(1), torch.ones(400).double(), atol=1e-5)
    overlap = (many @ many.T / 16).square()  # 1/16 on average for directions at random
    assert abs(float(overlap.mean()) * 16 - 1) < 0.05


def test_unit_norms_stay_while_the_table_learns():
    autoencoder, given, away = UnitEmbedding(12, channels=8), batch(12), Noise.of(2, 3)
    start = autoencoder.vectors().detach().clone()
    target = away.like(autoencoder.encode(given).mean)
    learn(autoencoder, lambda _: [autoencoder.encode(given).mean.mse(target)], steps=30)
    vectors = autoencoder.vectors().detach()
    assert float((vectors - start).norm(dim=1).max()) > 0.5
    assert torch.allclose(vectors.norm(dim=1), torch.full((12,), math.sqrt(8)), atol=1e-5)
    terms, _ = autoencoder.loss(given, Noise.of(0, 3), 0)
    assert terms == {}


def test_the_posterior_has_the_deviation_that_was_asked_for():
    given = batch()
    assert LearnedEmbedding(std=0.0).encode(given).log_std is None
    autoencoder = LearnedEmbedding(std=0.3)
    posterior = autoencoder.encode(given).detach()
    rest = posterior.sample(Noise.of(0, 3)) - posterior.mean
    assert abs(float(rest["z"][MASK].std()) - 0.3) < 0.02
    assert (rest["z"][~MASK] == 0).all()


def test_rounding_with_scale_and_bias_of_the_posterior_is_bayes_rule():
    autoencoder = LearnedEmbedding(7, channels=3, std=0.8).double()
    prior = torch.rand(7).double().softmax(0)
    with torch.no_grad():
        autoencoder.table.copy_(torch.randn(7, 3))
        autoencoder.log_scale.fill_(-2 * math.log(0.8))
        energy = autoencoder.table.square().sum(1) / (2 * 0.8**2)
        autoencoder.bias.copy_(prior.log() - energy)
    z = torch.randn(2, 5, 3).double()
    law = torch.distributions.Normal(autoencoder.table, 0.8)
    likelihood = law.log_prob(z[:, :, None]).sum(-1).exp()
    wanted = likelihood * prior / (likelihood * prior).sum(-1, keepdim=True)
    assert torch.allclose(autoencoder.rounding_logits(z).softmax(-1), wanted, atol=1e-10)


def test_the_rounding_loss_falls_to_what_bayes_rule_allows():
    """Two dimensions and much noise: rounding is hard, and the table learns to make it easier."""
    autoencoder = LearnedEmbedding(6, channels=2, std=0.4)
    given = {"tokens": torch.arange(6).expand(64, 6), "mask": torch.ones(64, 6, dtype=torch.bool)}

    def rounding(step):
        return autoencoder.loss(given, Noise.of((0, step), 64), step)[0]

    before = float(rounding(0)["rounding"].mean().detach())
    learn(autoencoder, lambda step: list(rounding(step).values()))
    after = float(rounding(10**6)["rounding"].mean().detach())
    assert before > 0.7 and after < 0.5 * before
    floor = bayes_nats(autoencoder.table.detach().double(), 0.4)
    assert floor - 0.05 < after < floor + 0.1


def bayes_nats(table, std, draws=4000):
    """The entropy of the token given z, by Monte Carlo; its standard error is below 0.01."""
    kinds = torch.arange(len(table)).repeat(draws)
    z = table[kinds] + std * torch.randn(len(kinds), table.shape[1]).double()
    logits = -torch.cdist(z, table).square() / (2 * std**2)
    return float(torch.nn.functional.cross_entropy(logits, kinds))


@pytest.mark.parametrize("scale", [0.05, 5.0])
def test_the_pull_takes_the_mean_square_to_one_from_either_side(scale):
    autoencoder = LearnedEmbedding(10, channels=4, rounding=0.0, pull=1.0)
    autoencoder.table.data.mul_(scale)
    m = float(autoencoder.table.square().mean().detach())
    term = autoencoder.loss(batch(10), Noise.of(0, 3), 0)[0]["pull"]
    assert float(term.detach()) == pytest.approx((m - 1 - math.log(m)) / 2, rel=1e-4)
    learn(autoencoder, lambda _: [autoencoder.loss(batch(10), Noise.of(0, 3), 0)[0]["pull"]], 400)
    assert autoencoder.report()["table_mean_square"] == pytest.approx(1, abs=0.02)


def test_the_pull_is_a_kl_divergence():
    narrow, unit = torch.distributions.Normal(0, math.sqrt(0.3)), torch.distributions.Normal(0, 1)
    autoencoder = LearnedEmbedding(10, channels=4)
    autoencoder.table.data.mul_(math.sqrt(0.3))
    term = autoencoder.loss(batch(10), Noise.of(0, 3), 0)[0]["pull"]
    assert float(term.detach()) == pytest.approx(
        float(torch.distributions.kl_divergence(narrow, unit)), rel=1e-4
    )


def test_nats_of_tokens_are_means_over_each_samples_own():
    logits = torch.randn(3, 6, 9)
    tokens = batch(9)["tokens"]
    found = token_nats(logits, tokens, MASK)
    for i, n in enumerate(LENGTHS.tolist()):
        wanted = -logits[i, :n].log_softmax(-1)[torch.arange(n), tokens[i, :n]].mean()
        assert torch.allclose(found[i], wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_settings(kind):
    with pytest.raises(ValueError, match="2 tokens and 1 channel"):
        kind(1)
    with pytest.raises(ValueError, match="2 tokens and 1 channel"):
        kind(channels=0)
    with pytest.raises(ValueError, match="can't be negative"):
        LearnedEmbedding(std=-1.0)
