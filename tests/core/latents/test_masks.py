"""What the host knows of padding: that there is none, for as long as it is so."""

import pytest
import torch
from torch.utils import _pytree

import anylatent as al
from anylatent.core.latents import Normaliser, cat, choose, combine
from anylatent.core.nn import attention
from anylatent.core.training.latent_store import cached_latents

SPECS = al.testing.SPECS
VARIABLE = [key for key, spec in SPECS.items() if any(f.variable for f in spec.fields.values())]


def drawn(spec, lengths, **settings):
    blank = spec.blank(len(lengths), torch.tensor(lengths), **settings)
    return al.Noise.of(0, len(lengths)).like(blank)


@pytest.mark.parametrize("key", VARIABLE)
def test_equal_lengths_are_known_to_be_and_stay_so(key):
    spec = SPECS[key]
    for lengths, settings, known in (
        ([5, 5, 5], {}, True),
        ([5], {}, True),
        ([5, 4, 5], {}, False),
        ([5, 5, 5], {"padded": 6}, False),
    ):
        z = drawn(spec, lengths, **settings)
        posterior = al.Posterior(z, z.map(torch.zeros_like))
        leaves, context = _pytree.tree_flatten(z)
        for found in (
            z, 2 * z - z / 3, combine((1.0, z), (torch.ones(len(lengths)), z)), z.project(),
            z.to(torch.float64), z.select([0]), z.take(list(z.parts)[:1]), z.detach(), z.zeros(),
            z.replace(**z.parts), choose(torch.ones(len(lengths), dtype=torch.bool), z, z),
            posterior.sample(al.Noise.of(1, len(lengths))), Normaliser(spec).encode(z),
            _pytree.tree_unflatten(leaves, context), cat([z, z]), spec.together([z, z]),
        ):  # fmt: skip
            assert found.full is known, (lengths, settings)


def test_no_field_of_variable_length_is_no_padding():
    assert SPECS["image"].blank(2).full


def test_a_shorter_one_among_them_is_padded():
    spec = SPECS["text"]
    even, short = drawn(spec, [5, 5]), drawn(spec, [4])
    assert even.full and short.full and not spec.together([even, short]).full


@pytest.mark.parametrize(("lengths", "known"), [([6, 6, 6, 6], True), ([6, 6, 5, 6], False)])
def test_batches_of_the_cache(lengths, known, tmp_path, monkeypatch):
    """Of one length, with a single shorter one, and of a single item."""
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path))
    whole = drawn(SPECS["text"], lengths)

    def encode(entries):
        return al.Posterior(whole.select(entries)), None

    cache = cached_latents(SPECS["text"], "here", 4, encode, torch.tensor(lengths))
    posterior, _ = cache.__getitems__([0, 1, 2, 3])
    assert posterior.mean.full is known
    assert torch.equal(posterior.mean["z"][2, : lengths[2]], whole["z"][2, : lengths[2]])
    assert cache[2][0].mean.full


@pytest.fixture
def seen(monkeypatch):
    """The masks that reach attention."""
    found, usual = [], attention.scaled_dot_product_attention

    def spy(*args, attn_mask=None, **told):
        found.append(attn_mask)
        return usual(*args, attn_mask=attn_mask, **told)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", spy)
    return found


@pytest.mark.parametrize("rotary", [1, 3])
def test_attention_without_padding_has_no_mask_and_says_the_same(rotary, seen):
    spec = SPECS["text"]
    torch.manual_seed(0)
    network = al.get("backbone", "transformer")(spec=spec, width=32, depth=2, heads=2).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    level = torch.linspace(-1, 1, 3)
    with torch.no_grad():
        plain = network(drawn(spec, [7, 7, 7]), level)["z"]
        assert seen and all(mask is None for mask in seen)
        seen.clear()
        padded = network(drawn(spec, [7, 7, 7], padded=7 + rotary), level)["z"]
        assert seen and all(mask is not None for mask in seen)
        among = network(drawn(spec, [7, 6, 7]), level)["z"]
    assert (padded[:, :7] - plain).abs().max() < 1e-6 * plain.abs().max()
    assert (among[::2] - plain[::2]).abs().max() < 1e-6 * plain.abs().max()
