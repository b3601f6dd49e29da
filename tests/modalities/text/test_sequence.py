"""The autoencoder that compresses: few latents for many tokens."""

import pytest
import torch

import anylatent as al
from anylatent.core.latents.noise import Noise
from anylatent.core.latents.spec import Field, LatentSpec
from anylatent.core.nn.bottleneck import KL
from anylatent.core.nn.quantise import VQ
from anylatent.modalities.text.sequence import SequenceAutoencoder
from anylatent.modalities.text.tokenizer import Symbols

LENGTHS = torch.tensor([7, 2, 5])
MASK = torch.arange(7) < LENGTHS[:, None]
DEPTHS = {"encoder": 1, "resampler": 1, "decoder": 1}
SMALL = {"latents": 2, "channels": 6, "width": 32, "heads": 2, **DEPTHS}


@pytest.fixture(autouse=True)
def seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def batch(vocabulary=12):
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(vocabulary, MASK.shape, generator=generator) * MASK
    return {"tokens": tokens, "mask": MASK, "length": LENGTHS}


def build(*facts, **settings):
    """An autoencoder none of whose branches is silent."""
    autoencoder = SequenceAutoencoder(*(facts or (12,)), **(SMALL | settings))
    with torch.no_grad():
        for parameter in autoencoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return autoencoder.eval()


def rows(texts):
    return [text.tokens.tolist() for text in texts]


@pytest.fixture(scope="module")
def learned():
    """One that has learned random texts by heart, which only its latents can tell apart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        autoencoder = SequenceAutoencoder(12, None, 9, KL(1e-4), **(SMALL | {"channels": 16}))
        lengths = torch.randint(1, 10, (24,))
        mask = torch.arange(9) < lengths[:, None]
        given = {"tokens": torch.randint(12, mask.shape) * mask, "mask": mask}
        optimiser = torch.optim.Adam(autoencoder.parameters(), lr=5e-3)
        losses = []
        for step in range(400):
            terms, _ = autoencoder.loss(given, Noise.of((0, step), 24), step)
            loss = torch.stack([term.mean() for term in terms.values()]).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(terms["reconstruction"].mean().detach()))
    return autoencoder.eval(), given, losses


@pytest.mark.parametrize("bottleneck", [KL, lambda: VQ(codes=16)])
def test_contract(bottleneck):
    al.testing.check_autoencoder(SequenceAutoencoder(12, None, 8, bottleneck(), **SMALL), batch())


def test_it_constructs_with_its_defaults():
    autoencoder = SequenceAutoencoder()
    assert autoencoder.spec == LatentSpec({"z": Field((8, 64), channels=1)})
    assert autoencoder.alone and autoencoder.codebook() is None
    assert len(autoencoder.decode(autoencoder.spec.blank(1))) == 1


def test_texts_of_all_lengths_come_back_from_latents_of_one_size(learned):
    autoencoder, given, losses = learned
    assert losses[0] > 2.3 and losses[-1] < 0.1
    z = autoencoder.encode(given).mean
    assert z["z"].shape == (24, 2, 16) and not z.masks
    wanted = [row[mask].tolist() for row, mask in zip(given["tokens"], given["mask"], strict=True)]
    found = rows(autoencoder.decode(z))
    assert sum(a == b for a, b in zip(found, wanted, strict=True)) >= 22
    order = torch.randperm(24)
    assert rows(autoencoder.decode(z.select(order))) == [found[i] for i in order]


def test_a_decoded_text_depends_on_its_own_latent_alone(learned):
    autoencoder, given, _ = learned
    z = autoencoder.encode(given).mean
    z = z + 0.5 * Noise.of(1, 24).like(z)
    together = rows(autoencoder.decode(z))
    for i in (0, 5, 23):
        assert rows(autoencoder.decode(z.select(slice(i, i + 1)))) == [together[i]]


def test_padding_changes_neither_latents_nor_losses():
    autoencoder, given = build(), batch()
    tokens = torch.nn.functional.pad(given["tokens"], (0, 6))
    longer = {"tokens": tokens, "mask": torch.nn.functional.pad(MASK, (0, 6))}
    with torch.no_grad():
        first, second = autoencoder.encode(given), autoencoder.encode(longer)
        assert float((first.mean - second.mean)["z"].abs().max()) < 1e-5
        assert float((first.mean["z"][0] - first.mean["z"][2]).abs().max()) > 1e-2
        terms = [autoencoder.loss(x, Noise.of(0, 3), 0)[0] for x in (given, longer)]
    for name, term in terms[0].items():
        assert torch.allclose(term, terms[1][name], atol=1e-5), name
        assert len(set(term.tolist())) == 3


def test_the_loss_is_the_cross_entropy_of_every_token_and_of_the_end():
    """Against the decoder fed token by token, which sees no token before it has predicted it."""
    autoencoder, given = build(12, None, 9, VQ(codes=16)), batch()
    with torch.no_grad():
        loss = autoencoder.loss(given, Noise.of(0, 3), 0)[0]["reconstruction"]
        z = autoencoder.bottleneck.decodable(autoencoder.encode(given).mean)
        for i, n in enumerate(LENGTHS.tolist()):
            context = autoencoder.lift(z["z"][i : i + 1]) + autoencoder.places
            cache = autoencoder.decoder.begin(1, n + 1, context)
            told, nats = torch.tensor([12]), 0.0
            for token in [*given["tokens"][i, :n].tolist(), 12]:
                nats -= float(autoencoder.decoder.step(told, cache).log_softmax(-1)[0, token])
                told = torch.tensor([token])
            assert float(loss[i]) == pytest.approx(nats / (n + 1), abs=1e-5)


def test_the_probabilities_of_all_texts_add_up():
    """Of 2 tokens and an end: texts of up to 6 tokens, and what is left for longer ones."""
    autoencoder = build(2, None, 8)
    texts = [[int(d) for d in f"{k:b}"[1:]] for k in range(1, 2**7)]
    mask = torch.arange(6) < torch.tensor([len(text) for text in texts])[:, None]
    tokens = torch.tensor([text + [0] * (6 - len(text)) for text in texts])
    z = Noise.of(0, 1).like(autoencoder.spec.blank(1)).select([0] * len(texts))
    with torch.no_grad():
        p = autoencoder.log_prob({"tokens": tokens, "mask": mask}, z).exp()
        logits = autoencoder.decoder(torch.tensor([[2]]), None, autoencoder._context(z.select([0])))
    assert len(texts) == 127 and mask[0].sum() == 0
    assert float(p[0]) == pytest.approx(float(logits.softmax(-1)[0, 0, 2]), rel=1e-5)
    left = 1 - float(p.sum())
    assert 0 < left < 0.3
    by_length = [float(p[mask.sum(1) == n].sum()) for n in range(7)]
    assert left == pytest.approx(by_length[-1] ** 2 / (by_length[-2] - by_length[-1]), rel=0.2)


def test_decoding_is_greedy_and_ends_by_itself_or_at_the_longest():
    autoencoder = build(12, None, 6)
    z = autoencoder.encode(batch()).mean
    with torch.no_grad():
        autoencoder.decoder.last.bias[12] = 100.0  # the end, as early as it may come
        assert [len(row) for row in rows(autoencoder.decode(z))] == [1, 1, 1]
        autoencoder.decoder.last.bias[12] = -100.0  # never
        found = autoencoder.decode(z)
        assert [len(row) for row in rows(found)] == [6, 6, 6]
        context = autoencoder.lift(z["z"]) + autoencoder.places
        begun = torch.nn.functional.pad(torch.tensor(rows(found)), (1, 0), value=12)
        best = autoencoder.decoder(begun, None, context)[:, :-1].argmax(-1)
    assert best.tolist() == rows(found)


def test_order_and_content_of_a_text_reach_its_latent():
    autoencoder, given = build(), batch()
    with torch.no_grad():
        plain = autoencoder.encode(given).mean["z"][0]
        turned = {**given, "tokens": given["tokens"].flip(1), "mask": MASK.flip(1)}
        assert float((autoencoder.encode(turned).mean["z"][0] - plain).abs().max()) > 1e-3
        for i in range(7):
            other = given["tokens"].clone()
            other[0, i] = (other[0, i] + 1) % 12
            moved = autoencoder.encode({**given, "tokens": other}).mean["z"][0]
            assert float((moved - plain).abs().max()) > 1e-4


def test_texts_are_said_by_the_tokenizer_of_the_run():
    tokenizer = Symbols(["C", "N", "Cl"])
    autoencoder = build(3, tokenizer.to_json(), 5)
    for text in autoencoder.decode(autoencoder.encode(batch(3)).mean):
        assert text.text == tokenizer.decode(text.tokens.tolist()) and 1 <= len(text) <= 5
    with pytest.raises(ValueError, match="3 tokens for a vocabulary of 4"):
        SequenceAutoencoder(4, tokenizer.to_json(), 5)


def test_bad_settings():
    with pytest.raises(ValueError, match="must be positive, got 0"):
        SequenceAutoencoder(latents=0)
    with pytest.raises(ValueError, match="heads of even size"):
        SequenceAutoencoder(width=30, heads=2)
