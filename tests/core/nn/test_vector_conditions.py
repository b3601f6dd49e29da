"""Vectors as conditions: of samples, of entries, and beside tokens under one name."""

import pytest
import torch

import anylatent as al
from anylatent.core.latents import token_condition
from anylatent.core.nn.conditioning import ConditionEmbedder

WIDTH = 6
POSE = al.ConditionSpec(vectors={"pose": al.Field((3,))})
CAMERAS = al.ConditionSpec(vectors={"camera": al.Field((None, 3))})
BOTH = al.ConditionSpec(tokens={"caption": 5}, vectors={"caption": al.Field((2,))})


def embedder(spec, **how):
    torch.manual_seed(0)
    return ConditionEmbedder(spec, WIDTH, **how)


def test_a_vector_is_a_linear_layer_or_its_null():
    net, x = embedder(POSE), torch.randn(2, 3)
    cond = al.Condition({"pose": x}, {"pose": torch.tensor([True, False])})
    own, none = net(cond, torch.zeros(2, 4)).vector
    layer = net.vectors["pose"]
    assert torch.allclose(own, layer.linear.weight @ x[0] + layer.linear.bias, atol=1e-6)
    assert torch.equal(none, layer.null)


def test_vectors_of_entries_steer_each_its_own():
    """Level + vector of each entry; nothing in the padding, whatever stands there."""
    net, x = embedder(CAMERAS, entries=True), torch.randn(2, 4, 3)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    x[1, 2:] = torch.inf
    value = al.Latent(
        {"vector": x}, {"vector": mask}, al.LatentSpec({"vector": al.Field((None, 3))})
    )
    known = net(al.Condition({"camera": value}), torch.zeros(2, 4, 7))
    level = torch.randn(2, WIDTH)
    for found in (
        known.steering(level, mask),
        known.steering(level[:, None].expand(2, 4, -1), mask),
    ):
        layer = net.vectors["camera"]
        wanted = level[:, None] + layer.linear(x.nan_to_num(posinf=0)) * mask[..., None]
        assert torch.allclose(found[mask], wanted[mask], atol=1e-6)
        assert torch.equal(found[~mask], level[1].expand(2, -1))
    found.sum().backward()
    assert net.vectors["camera"].linear.weight.grad.isfinite().all()


def test_one_keep_drops_tokens_and_vector_together():
    states, mask = torch.randn(2, 3, 5), torch.ones(2, 3, dtype=torch.bool)
    value = token_condition(states, mask, torch.randn(2, 2))
    cond = al.Condition({"caption": value}, {"caption": torch.tensor([True, False])})
    assert BOTH.names == ["caption"] == list(cond.keep)
    net, like = embedder(BOTH), torch.zeros(2, 4)
    found, nothing = net(cond, like), net(None, like)
    assert torch.equal(found.vector[1], nothing.vector[1])
    assert not torch.equal(found.vector[0], nothing.vector[0])
    assert found.mask[:, 1:].tolist() == [[True] * 3, [False] * 3]
    other = token_condition(states, mask, torch.randn(2, 2))
    changed = net(al.Condition({"caption": other}, cond.keep), like)
    assert torch.equal(changed.context, found.context)
    assert not torch.equal(changed.vector[0], found.vector[0])


@pytest.mark.parametrize(
    ("kind", "name"), [("image", "unet"), ("image", "dit"), ("molecule", "egnn")]
)
def test_a_backbone_without_entries_refuses_them(kind, name):
    part, spec = al.get("backbone", name), al.testing.SPECS[kind]
    with pytest.raises(ValueError, match="can't read the vectors 'camera'.*backbone=transformer"):
        part(spec=spec, conditions=CAMERAS)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="'pose' must have the shape"):
        embedder(al.ConditionSpec(vectors={"pose": al.Field((2, 3, 4))}), entries=True)
    net = embedder(CAMERAS, entries=True)
    with pytest.raises(ValueError, match=r"'camera' must be of shape \(2, 4, 3\), got \(2, 5, 3\)"):
        net(al.Condition({"camera": torch.zeros(2, 5, 3)}), torch.zeros(2, 4, 7))
    tokens = token_condition(torch.zeros(2, 4, 3), torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="or a latent with the field `vector`"):
        net(al.Condition({"camera": tokens}), torch.zeros(2, 4, 7))
