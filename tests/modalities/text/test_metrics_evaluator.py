"""The language model that judges: its likelihood in closed form, and what it learns."""

from __future__ import annotations

import math

import pytest
import torch

from anylatent.modalities.shared import probes
from anylatent.modalities.text.metrics import evaluator, probe
from anylatent.modalities.text.metrics.evaluator import Evaluator, learn, pack

# from each of three tokens to each of three, and to the end; the last row is how texts begin
CHAIN = torch.tensor(
    [
        [0.00, 0.70, 0.10, 0.20],
        [0.60, 0.10, 0.20, 0.10],
        [0.05, 0.05, 0.80, 0.10],
        [0.50, 0.25, 0.25, 0.00],
    ],
    dtype=torch.float64,
)


def drawn(count: int, seed: int) -> list[torch.Tensor]:
    """Texts of the chain."""
    generator = torch.Generator().manual_seed(seed)
    texts = []
    for _ in range(count):
        text, token = [], 3
        while True:
            token = int(torch.multinomial(CHAIN[token], 1, generator=generator))
            if token == 3:
                break
            text.append(token)
        texts.append(torch.tensor(text))
    return texts


def exact(text: torch.Tensor) -> float:
    """−log p of a text of the chain."""
    path = [3, *text.tolist(), 3]
    return -sum(math.log(CHAIN[a, b]) for a, b in zip(path, path[1:], strict=False))


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"WIDTH": 32, "DEPTH": 1, "HEADS": 2, "RATE": 1e-2}.items():
            patch.setattr(evaluator, name, value)
        yield


@pytest.fixture(scope="module")
def taught() -> Evaluator:
    return Evaluator(learn(drawn(4000, 0), 3, steps=150), 3)


TEXTS = [torch.tensor(ids, dtype=torch.long) for ids in ([0, 1, 0], [], [2], [1, 0, 2, 2, 2, 2])]


# ---- batches ----------------------------------------------------------------------------------
def test_a_text_begins_and_ends_with_the_same_id() -> None:
    read, said = pack([torch.tensor([4, 5]), torch.tensor([6])], 9)
    assert read.tolist() == [[9, 4, 5], [9, 6, 9]]
    assert said.tolist() == [[4, 5, 9], [6, 9, -100]]


def test_every_text_is_in_one_batch_and_batches_are_bounded() -> None:
    texts = [torch.zeros(n % 50, dtype=torch.long) for n in range(333)]
    batches = evaluator._batches(texts, tokens=256)
    assert sorted(sum(batches, [])) == list(range(333))
    for rows in batches:
        assert (len(rows) - 1) * (max(len(texts[row]) for row in rows) + 1) < 256
    assert evaluator._batches([], 256) == []
    assert evaluator._batches(texts[:3], 0) == [[2], [1], [0]]  # one at least


# ---- likelihood -------------------------------------------------------------------------------
def test_uniform_logits_cost_the_logarithm_of_the_vocabulary(taught) -> None:
    """(n + 1)·log(V + 1), the end being one of n + 1 tokens and one of V + 1 ids."""
    flat = {name: torch.zeros_like(value) for name, value in taught.network.state_dict().items()}
    nats = Evaluator(flat, 3).nats(TEXTS)
    expected = [(len(text) + 1) * math.log(4) for text in TEXTS]
    assert nats.tolist() == pytest.approx(expected, rel=1e-6)


def test_the_likelihood_is_the_product_over_growing_prefixes(taught) -> None:
    for text, nats in zip(TEXTS, taught.nats(TEXTS).tolist(), strict=True):
        path, total = torch.cat([torch.tensor([3]), text, torch.tensor([3])]), 0.0
        for place in range(1, len(path)):
            logits = taught.network(path[None, :place])[0, -1]
            total -= float(logits.log_softmax(0)[path[place]])
        assert nats == pytest.approx(total, abs=1e-4)


def test_a_text_is_judged_as_if_alone(taught) -> None:
    texts = drawn(40, 5) + TEXTS
    nats, features = taught.nats(texts), taught.features(texts)
    for row in (0, 7, 39, 40, 41, 43):
        assert float(taught.nats([texts[row]])) == pytest.approx(float(nats[row]), abs=1e-4)
        assert torch.allclose(taught.features([texts[row]])[0], features[row], atol=1e-5)


def test_features_are_the_mean_and_the_last_state(taught) -> None:
    states = taught.network.states(torch.tensor([[3, 0, 1, 0]]))[0]
    found = taught.features(TEXTS)[0]
    assert torch.allclose(found, torch.cat([states.mean(0), states[-1]]), atol=1e-5)
    alone = taught.network.states(torch.tensor([[3]]))[0, 0]
    assert torch.allclose(taught.features(TEXTS)[1], torch.cat([alone, alone]), atol=1e-5)


# ---- learning ---------------------------------------------------------------------------------
def test_it_learns_the_law_of_a_chain(taught) -> None:
    """Of fresh texts the figure is the chain's own, which no model can beat on average."""
    fresh = drawn(1500, 1)
    truth = sum(map(exact, fresh))
    found = float(taught.nats(fresh).sum())
    assert truth < found < 1.03 * truth
    shuffled = [text[torch.randperm(len(text), generator=_generator(2))] for text in fresh]
    assert float(taught.nats(shuffled).sum()) > 1.2 * truth


def test_what_the_chain_never_does_costs_most(taught) -> None:
    """0 never follows 0, and no text is empty."""
    usual, never = taught.nats([torch.tensor([0, 1]), torch.tensor([0, 0, 1])])
    assert never - usual > 4
    assert float(taught.nats([torch.tensor([], dtype=torch.long)])) > 4


def test_learning_is_deterministic_and_leaves_the_global_state() -> None:
    texts = drawn(50, 3)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = learn(texts, 3, steps=4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    second = learn(texts, 3, steps=4)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_every_parameter_is_learned_by_one_optimizer(monkeypatch) -> None:
    monkeypatch.setattr(evaluator, "DEPTH", 2)
    network = evaluator._network(5)
    groups = [optimizer.param_groups for optimizer in evaluator._optimizers(network)]
    taken = [id(p) for (group,) in groups for p in group["params"]]
    assert sorted(taken) == sorted(map(id, network.parameters()))
    (hidden,), _ = groups
    shapes = {tuple(p.shape) for p in hidden["params"]}
    assert shapes == {(32, 32), (64, 32), (128, 32), (32, 128)}


def test_few_texts_are_not_learned_by_heart(monkeypatch) -> None:
    taken = []
    sampler = probes.StepSampler
    monkeypatch.setattr(
        probes, "StepSampler", lambda *a, **k: taken.append(a[:3]) or sampler(*a, **k)
    )
    learn(drawn(6, 0), 3, steps=10_000)
    assert taken == [(6, 6, evaluator.EPOCHS)]  # all six in each of a few steps
    learn([torch.tensor([], dtype=torch.long)], 3, steps=2)
    assert taken[1] == (1, 1, 2)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- the probe --------------------------------------------------------------------------------
def test_the_probe_is_bayes_on_two_gaussians() -> None:
    """N(±1, 1) on one axis, noise on another: right for Φ(1) = .841 of fresh ones."""
    x = torch.randn(4000, 2, generator=_generator(0))
    labels = torch.arange(4000) % 2
    x[:, 0] += 2.0 * labels - 1
    x = x * torch.tensor([1.0, 50.0]) + 7  # neither scale nor origin matters
    state = probe.fit(x[:2000], labels[:2000], 2)
    right = (probe.named(state, x[2000:]) == labels[2000:]).double().mean()
    assert float(right) == pytest.approx(0.841, abs=0.025)


def test_the_probe_is_at_the_minimum_of_its_loss() -> None:
    x = torch.randn(200, 3, generator=_generator(1))
    labels = (x[:, 0] + 0.5 * x[:, 1] > 0).long() + (x[:, 2] > 1).long()
    state = probe.fit(x, labels, 3)
    weight = state["weight"].clone().requires_grad_()
    bias = state["bias"].clone().requires_grad_()
    scores = ((x - state["centre"]) / state["scale"]).double() @ weight.T + bias
    loss = torch.nn.functional.cross_entropy(scores, labels)
    (loss + probe.PENALTY * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-3 and bias.grad.abs().max() < 1e-3
