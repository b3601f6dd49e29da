"""Latents as conditions: vectors, entries and grids, each embedded by its shape."""

import pytest
import torch

import anylatent as al
from anylatent.core.latents import Condition, ConditionSpec, Field, LatentSpec
from anylatent.core.nn.conditioning import ConditionEmbedder
from anylatent.core.nn.latent_conditions import resized
from anylatent.core.testing.networks import OTHERS

FIELDS = {"code": Field((3,)), "points": Field((4, 2)), "words": Field((None, 2))}
GRID = Field((2, 4, 6), channels=0)


def value(field, batch=3, seed=0):
    spec = LatentSpec({"own": field})  # the name within the value is its maker's
    lengths = [4, 2, 3] if field.variable else None
    return al.Noise.of(seed, batch).like(spec.blank(batch, lengths))


def embedder(fields, **told):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return ConditionEmbedder(ConditionSpec(latents=fields), 8, **told)


# ---- grids ------------------------------------------------------------------------------------
def test_a_grid_is_resized_by_means_and_straight_lines():
    x = torch.arange(24.0).reshape(1, 1, 4, 6)
    assert torch.equal(resized(x, (4, 6)), x)
    means = x.reshape(1, 1, 2, 2, 3, 2).mean((3, 5))
    assert torch.allclose(resized(x, (2, 3)), means)
    slope = torch.linspace(0, 1, 8).reshape(1, 1, 8, 1)
    wide = resized(slope, (16, 1))[0, 0, 1:-1, 0]  # the ends are continued as they are
    assert torch.allclose(wide.diff(), torch.full((13,), 1 / 14))
    mixed = resized(x, (2, 12))
    assert torch.allclose(mixed.mean(-1), resized(x, (2, 6)).mean(-1))


@pytest.mark.parametrize("axis", (1, 3))
def test_a_grid_lies_over_the_channels_wherever_these_are(axis):
    module = embedder({"map": GRID}, axes=2)
    assert module.overlaid == 2 and module.context is None
    known = value(GRID)
    x = torch.zeros(3, 5, 4, 6).movedim(1, axis)
    laid = module.overlay(x, Condition({"map": known}), axis).movedim(axis, 1)
    assert laid.shape[1] == 7 and torch.equal(laid[:, 5:], known["own"])
    smaller = module.overlay(torch.zeros(3, 5, 2, 3), Condition({"map": known}))
    assert torch.allclose(smaller[:, 5:].mean((2, 3)), known["own"].mean((2, 3)), atol=1e-6)


# ---- vectors and entries ----------------------------------------------------------------------
def test_a_vector_is_a_linear_layer_beside_the_noise_level():
    module, known = embedder({"code": FIELDS["code"]}), value(FIELDS["code"])
    found = module(Condition({"code": known}), torch.zeros(3, 1)).vector
    assert torch.allclose(found, module.latents["code"](known["own"]))


@pytest.mark.parametrize("name", ("points", "words"))
def test_entries_are_tokens_in_no_order_until_it_tells_something(name):
    module, known = embedder({name: FIELDS[name]}), value(FIELDS[name])
    found = module(Condition({name: known}), torch.zeros(3, 1))
    assert found.context.shape[1] == 5 and module.context == 8
    tokens = module.tokens[name].linear(known["own"])
    counted = found.mask[:, 1:]
    assert torch.allclose(found.context[:, 1:][counted], tokens[counted])
    assert counted.sum(1).tolist() == known.lengths("own").tolist()
    with torch.no_grad():
        module.tokens[name].place.weight.normal_()
    placed = module(Condition({name: known}), torch.zeros(3, 1)).context[:, 1:] - tokens
    gaps = torch.pdist(placed[0].detach())
    assert float(gaps.min()) > 1e-2


def test_a_dropped_a_missing_and_no_latent_are_the_same():
    fields = {**FIELDS, "map": GRID}
    module, x = embedder(fields, axes=2), torch.zeros(3, 2, 4, 6)
    with torch.no_grad():
        for null in module.nulls.values():
            null.normal_()
    cond = Condition({name: value(field) for name, field in fields.items()})

    def told(cond):
        known = module(cond, x)
        seen = torch.where(known.mask[..., None], known.context, 0).sum(1)
        return known.vector, seen, module.overlay(x, cond)

    for name in fields:
        dropped, missing, full = told(cond.null(name)), told(cond.without(name)), told(cond)
        for a, b in zip(dropped, missing, strict=True):
            assert torch.allclose(a, b, atol=1e-6), name
        assert any(not torch.allclose(a, b) for a, b in zip(dropped, full, strict=True)), name
    for a, b in zip(told(cond.null()), told(None), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_fact_is_read_by_every_branch():
    """What `null` leaves alone, the embedder does too."""
    module = embedder({"code": FIELDS["code"]})
    fact = Condition().fixed(code=value(FIELDS["code"]))
    like = torch.zeros(3, 1)
    assert torch.equal(module(fact.null(), like).vector, module(fact, like).vector)


# ---- what is refused --------------------------------------------------------------------------
def test_wrong_values_are_errors_that_say_what_is_wanted():
    module = embedder({"code": FIELDS["code"], "points": FIELDS["points"]})
    with pytest.raises(ValueError, match=r"'code' must be a latent of one field, got"):
        module(Condition({"code": torch.zeros(3, 3)}), torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"'points' must be of shape \(B, \(4, 2\)\), got"):
        module(Condition({"points": value(Field((5, 2)))}), torch.zeros(3, 1))


@pytest.mark.parametrize(
    ("backbone", "refused"),
    [
        ("mlp", "plane"),
        ("transformer", "plane"),
        ("egnn", "few"),
        ("unet", "clip"),
        ("dit", "clip"),
    ],
)
def test_a_backbone_says_what_it_can_not_read(backbone, refused):
    field = OTHERS[refused]
    with pytest.raises(ValueError, match=rf"can't read the latent '{refused}' .*reads vectors"):
        al.get("backbone", backbone)(conditions=ConditionSpec(latents={refused: field}))
