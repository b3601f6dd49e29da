"""The blocks that modalities share."""

import math

import pytest
import torch

from anylatent.core.latents.condition import Condition, ConditionSpec, token_condition
from anylatent.core.latents.noise import Noise
from anylatent.core.latents.posterior import Posterior
from anylatent.core.latents.spec import Field, LatentSpec
from anylatent.core.nn.adversary import adaptive_weight, hinge
from anylatent.core.nn.attention import Attention, attend
from anylatent.core.nn.bottleneck import KL
from anylatent.core.nn.conditioning import ConditionEmbedder
from anylatent.core.nn.embedding import SinusoidalFeatures, grid_positions
from anylatent.core.nn.layers import AdaptiveGroupNorm, convolution, groups_of
from anylatent.core.nn.quantise import VQ
from anylatent.core.nn.residual import AttentionBlock, Downsample, ResBlock, Upsample

SPEC = LatentSpec({"z": Field((2, 4, 4), channels=0)})


def test_attention_equals_its_formula_and_reads_zeros_where_no_key_is_visible():
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 6, 4), torch.randn(2, 3, 6, 4)
    mask = torch.tensor([[True, True, False, True, False, False], [False] * 6])
    out = attend(q, k, v, mask)
    scores = (q[0] @ k[0].transpose(-1, -2) / math.sqrt(4)).masked_fill(~mask[0], -math.inf)
    assert torch.allclose(out[0], scores.softmax(-1) @ v[0], atol=1e-6)
    assert (out[1] == 0).all()
    assert (attend(q, k[:, :, :0], v[:, :, :0]) == 0).all()


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_residual_branches_are_the_identity_at_initialisation(axes):
    x = torch.randn(2, 8, *[4] * axes)
    assert torch.equal(ResBlock(8, 8, axes=axes)(x), x)
    assert torch.equal(AttentionBlock(8, 2)(x), x)


@pytest.mark.parametrize("side", [4, 5, 7])
def test_resampling_keeps_any_side(side):
    x = torch.randn(1, 4, side, side)
    low = Downsample(4)(x)
    assert low.shape[-1] == math.ceil(side / 2)
    assert Upsample(4)(low, (side, side)).shape == x.shape


def test_adaptive_group_norm_starts_as_a_group_norm():
    x = torch.randn(3, 8, 6, 6)
    out = AdaptiveGroupNorm(8, 5)(x, torch.randn(3, 5))
    groups = groups_of(8)
    flat = x.reshape(3, groups, -1)
    wanted = (flat - flat.mean(-1, keepdim=True)) / (
        flat.var(-1, keepdim=True, correction=0) + 1e-5
    ).sqrt()
    assert torch.allclose(out, wanted.reshape(x.shape), atol=1e-5)


def test_an_unknown_number_of_axes_is_an_error():
    with pytest.raises(ValueError, match="axes"):
        convolution(2, 2, axes=4)
    with pytest.raises(ValueError, match="heads"):
        Attention(6, 4)


def test_features_tell_the_ends_of_the_noise_range_apart():
    features = SinusoidalFeatures(64)(torch.linspace(-5, 5, 101))
    distance = torch.cdist(features, features) + 1e9 * torch.eye(101)
    assert distance.min() > 0.1
    positions = grid_positions(3, 5, 16)
    assert positions.shape == (15, 16) and len(positions.unique(dim=0)) == 15


def embedder() -> ConditionEmbedder:
    torch.manual_seed(1)
    spec = ConditionSpec(classes={"c": 4}, tokens={"t": 6}, maps={"m": 2}, scalars=["s"])
    return ConditionEmbedder(spec, 8)


def condition(length: int = 5) -> Condition:
    generator = torch.Generator().manual_seed(2)
    mask = torch.arange(length) < torch.tensor([[length], [2], [0]])
    states = torch.randn(3, length, 6, generator=generator)
    return Condition(
        {
            "c": torch.tensor([1, 2, 3]),
            "t": token_condition(states, mask),
            "m": torch.randn(3, 2, 4, 4, generator=generator),
            "s": torch.tensor([0.1, 1.0, 2.0]),
        }
    )


def embed(cond):
    module, like = embedder(), torch.zeros(3, 2, 4, 4)
    known = module(cond, like)
    visible = torch.where(known.mask[..., None], known.context, 0)
    return known.vector, visible.sum(1), module.overlay(like, cond)


def test_a_dropped_a_missing_and_no_condition_are_the_same():
    cond = condition()
    for name in cond.values:
        others = {key: value for key, value in cond.values.items() if key != name}
        dropped, missing, full = embed(cond.null(name)), embed(Condition(others)), embed(cond)
        for a, b in zip(dropped, missing, strict=True):
            assert torch.allclose(a, b, atol=1e-6), name
        assert any(not torch.allclose(a, b) for a, b in zip(dropped, full, strict=True)), name
    for a, b in zip(embed(cond.null()), embed(None), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_padding_of_tokens_changes_nothing_even_if_it_holds_infinities():
    cond = condition()
    value = cond.values["t"]
    padded = torch.nn.functional.pad(value["tokens"], (0, 0, 0, 3), value=math.inf)
    mask = torch.nn.functional.pad(value.masks["tokens"], (0, 3))
    longer = Condition({**cond.values, "t": token_condition(padded, mask)}, cond.keep)
    for a, b in zip(embed(longer), embed(cond), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_an_unknown_condition_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match=r"zz.*'c'"):
        embed(Condition({"zz": torch.zeros(3)}))


def test_kl_term_is_the_closed_form_per_degree_of_freedom():
    mean = SPEC.blank(2).map(lambda x: x + 0.5)
    log_std = SPEC.blank(2).map(lambda x: x - 1.0)
    bottleneck = KL(weight=0.1)
    posterior = bottleneck.posterior(mean, log_std)
    _, terms = bottleneck(posterior, Noise.of(0, 2))
    wanted = 0.5 * (math.exp(-2) + 0.25 - 1) + 1.0
    assert torch.allclose(terms["kl"], torch.full((2,), 0.1 * wanted))


def test_kl_of_a_centred_posterior_counts_n_minus_one_points():
    spec = LatentSpec({"x": Field((None, 3), centred=True)})
    mean = spec.blank(2, [4, 7])
    posterior = Posterior(mean, mean.map(lambda x: x + math.log(0.5)))
    each = 0.5 * (0.25 - 1) - math.log(0.5)
    assert torch.allclose(posterior.kl(), each * mean.dim)


def vq(codes: int = 8) -> VQ:
    bottleneck = VQ(codes=codes, decay=0.5)
    bottleneck.attach(SPEC)
    return bottleneck


def test_quantisation_picks_the_nearest_code_and_passes_the_gradient_through():
    torch.manual_seed(0)
    bottleneck = vq().eval()
    z = SPEC.blank(3).map(torch.randn_like)
    leaf = z["z"].requires_grad_()
    out, terms = bottleneck(Posterior(SPEC.wrap({"z": leaf})), Noise.of(0, 3))
    vectors = leaf.detach().movedim(1, -1).reshape(-1, 2)
    codes = bottleneck.codebook[torch.cdist(vectors, bottleneck.codebook).argmin(1)]
    assert torch.allclose(out["z"].detach().movedim(1, -1).reshape(-1, 2), codes, atol=1e-6)
    weight = torch.randn_like(leaf)
    (gradient,) = torch.autograd.grad((out["z"] * weight).sum(), leaf, retain_graph=True)
    assert torch.allclose(gradient, weight)
    wanted = bottleneck.weight * (vectors - codes).reshape(3, -1).square().mean(1)
    assert torch.allclose(terms["vq"], wanted, atol=1e-6)


def test_codebook_learns_clusters_revives_dead_codes_and_reports_its_use():
    torch.manual_seed(0)
    centres = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 3.0], [0.0, -3.0]])
    bottleneck = vq(codes=16).train()
    bottleneck.codebook.copy_(50 + torch.randn(16, 2))  # far from all data: all dead but one
    for step in range(60):
        index = torch.randint(4, (8, 4, 4))
        z = (centres[index] + 0.01 * torch.randn(8, 4, 4, 2)).movedim(-1, 1)
        bottleneck(Posterior(SPEC.wrap({"z": z})), Noise.of((0, step), 8))
    assert torch.cdist(centres, bottleneck.codebook).amin(1).max() < 0.1
    report = bottleneck.report()
    assert report["codebook_used"] > 0.5 and report["codebook_perplexity"] > 3.9


def test_hinge_losses_and_the_adaptive_weight():
    real, fake = torch.tensor([[2.0, 0.5]]), torch.tensor([[-2.0, 1.0]])
    a, b = hinge(real, fake)
    assert float(a) == pytest.approx(0.125) and float(b) == pytest.approx(0.5)
    last = torch.nn.Parameter(torch.ones(3))
    weight = adaptive_weight((6 * last).sum(), (2 * last).sum(), last)
    assert float(weight) == pytest.approx(3, rel=1e-4)
