"""One token after the other: exact likelihood, its own lengths, no dependence on neighbours."""

import math

import pytest
import torch

import anylatent as al
from anylatent.core.latents.codebook import Codebook
from anylatent.core.latents.condition import Condition, ConditionSpec
from anylatent.core.support.files import UserError
from tests.core.toys import alone, distance

WIDTH, SIZE = 4, 3
SPEC = al.LatentSpec({"z": al.Field((None, WIDTH))})
FIXED = al.LatentSpec({"z": al.Field((3, WIDTH))})
VECTORS = torch.eye(WIDTH)[:SIZE] * 2


def model(spec=SPEC, conditions=None, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        part = al.get("generator", "autoregressive")(
            Codebook(spec, lambda: VECTORS), conditions, width=32, depth=2, heads=2, **settings
        )
        for parameter in part.network.last.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return part.eval()


def sampled(part, lengths, seed=0, positions=None, cond=None, temperature=None, **settings):
    positions = positions or list(range(len(lengths)))
    given = None if all(f.shape[0] for f in part.spec.fields.values()) else lengths
    blank = part.spec.blank(len(positions), given)
    parts = (al.get("solver", "heun")(), al.get("grid", "log_snr")(), 7)
    sampler = al.Sampler(*parts, temperature=temperature)
    return part.sample(blank, cond, sampler, al.Noise.of(seed, positions), **settings)


def sequences(longest):
    """All token sequences of 1 … longest tokens."""
    found = [[]]
    for _ in range(longest):
        found += [s + [t] for s in found for t in range(SIZE) if [*s, t] not in found]
    return [s for s in found if s]


def latent(part, rows):
    mask = torch.arange(max(map(len, rows))) < torch.tensor([len(row) for row in rows])[:, None]
    tokens = torch.zeros(mask.shape, dtype=torch.long)
    tokens[mask] = torch.tensor([t for row in rows for t in row])
    return part.codebook.latent(tokens, mask)


def test_probabilities_of_all_sequences_sum_to_one():
    """Of fixed length, all 27 of them; of free length, those of up to 3 tokens and the rest."""
    part = model(FIXED)
    all_of_them = torch.cartesian_prod(*[torch.arange(SIZE)] * 3)
    x0 = part.codebook.latent(all_of_them)
    nats = part.bound(x0, None, al.Noise.of(0, 27), part.codebook)
    free = model()
    rows = [s for s in sequences(3)]
    p = (-free.bound(latent(free, rows), None, al.Noise.of(0, len(rows)), free.codebook)).exp()
    begin = torch.full((1, 1), free.end)
    nothing = free.network(begin)[0, -1].softmax(-1)[free.end]
    longer = 0.0
    for row in (row for row in rows if len(row) == 3):
        seen = torch.tensor([[free.end, *row]])
        logits = free.network(seen).log_softmax(-1)[0]
        path = sum(logits[i, t] for i, t in enumerate(row))
        longer += float((path + torch.log1p(-logits[3, free.end].exp())).exp())
    assert float(p.sum() + nothing) + longer == pytest.approx(1, abs=1e-4)
    fixed = part.network(torch.cat([torch.full((27, 1), part.end), all_of_them], 1)).log_softmax(-1)
    by_hand = -sum(fixed[torch.arange(27), i, all_of_them[:, i]] for i in range(3))
    assert torch.allclose(nats, by_hand, atol=1e-4)


def test_the_loss_is_nats_per_token_with_the_end():
    part, rows = model(), [[0, 1, 2, 0], [1], [2, 2]]
    x0 = latent(part, rows)
    nats = part.bound(x0, None, al.Noise.of(0, 3), part.codebook)
    assert torch.allclose(part.loss(x0, None, al.Noise.of(0, 3)), nats / torch.tensor([5, 2, 3]))
    for i in range(3):
        own = part.loss(alone(x0, i), None, al.Noise.of(0, [i]))
        assert torch.allclose(own, part.loss(x0, None, al.Noise.of(0, 3))[i], atol=1e-5)


def test_samples_follow_the_model():
    """Frequencies of sequences against their probabilities, to 5 standard errors."""
    part, count = model(), 4000
    z = sampled(part, [12] * count)
    lengths, tokens = z.lengths("z"), part.codebook.tokens(z)
    rows = sequences(2)
    p = (-part.bound(latent(part, rows), None, al.Noise.of(0, len(rows)), part.codebook)).exp()
    p = p / (1 - part.network(torch.full((1, 1), part.end))[0, -1].softmax(-1)[part.end])
    for row, wanted in zip(rows, p.tolist(), strict=True):
        n = len(row)
        same = (lengths == n) & (tokens[:, :n] == torch.tensor(row)).all(1)
        share = float(same.double().mean())
        assert abs(share - wanted) < 5 * math.sqrt(wanted / count) + 1e-3, row


def test_lengths_are_its_own_up_to_the_room_of_each_sample():
    part = model()
    z = sampled(part, [1, 2, 30, 5] * 20)
    lengths = z.lengths("z").view(20, 4)
    assert int(lengths.min()) >= 1 and torch.equal(lengths[:, 0], torch.ones(20).long())
    assert int(lengths[:, 1].max()) <= 2 and int(lengths[:, 3].max()) <= 5
    assert len(set(lengths[:, 2].tolist())) > 3
    assert al.testing.in_subspace(z)
    assert sampled(model(FIXED), [3, 3])["z"].shape == (2, 3, WIDTH)


def test_a_sample_does_not_depend_on_its_neighbours():
    part = model()
    joint = sampled(part, [20, 20, 20])
    for i in range(3):
        own = sampled(part, [20], positions=[i])
        n = int(own.lengths("z"))
        assert int(joint.lengths("z")[i]) == n
        assert torch.equal(own["z"][0, :n], joint["z"][i, :n])


def test_low_temperature_gives_the_likeliest_token():
    part = model()
    z = sampled(part, [4] * 50, temperature=1e-4)
    assert len({tuple(row) for row in part.codebook.tokens(z).tolist()}) == 1
    assert part.temperature == 1
    with pytest.raises(UserError, match="positive"):
        sampled(part, [4], temperature=0.0)


def test_conditions_change_it_and_dropping_them_does_not_leak():
    part = model(conditions=ConditionSpec(classes={"kind": 3}))
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x0 = latent(part, [[0, 1], [0, 1]])
    cond = Condition({"kind": torch.tensor([0, 2])})
    noise = al.Noise.of(0, 2)
    one, other = part.loss(x0, cond, noise)
    assert abs(float(one - other)) > 1e-4
    free = part.loss(x0, cond.null(), noise)
    assert torch.allclose(free, part.loss(x0, None, noise)) and torch.allclose(free[0], free[1])
    assert distance(sampled(part, [9, 9], cond=cond), sampled(part, [9, 9], cond=cond)) == 0


def test_the_callback_is_called_as_often_as_there_are_steps():
    calls = []
    part = model(FIXED)
    sampled(part, [3, 3], callback=lambda i, t, x: calls.append(i))
    assert calls == list(range(7))


def test_it_learns_a_language():
    """Alternating tokens: the loss falls towards the one bit of the first token and the end."""
    part = model().train()
    optimiser = torch.optim.Adam(part.parameters(), lr=1e-2)
    x0 = latent(part, [[0, 1, 0, 1, 0, 1], [1, 0, 1, 0, 1, 0]])
    for _ in range(120):
        optimiser.zero_grad()
        loss = part.loss(x0, None, al.Noise.of(0, 2)).mean()
        loss.backward()
        optimiser.step()
    assert float(loss) == pytest.approx(math.log(2) / 7, abs=0.05)


def test_without_a_codebook_it_says_what_to_do():
    with pytest.raises(UserError, match="unit_embedding"):
        al.get("generator", "autoregressive")()
