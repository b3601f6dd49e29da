"""Brownian paths: one per sample, the same in whatever order and however finely it is asked."""

import math

import pytest
import torch

import anylatent as al
from anylatent.core.latents.paths import DEPTH, RANGE
from tests.core.toys import alone

SPEC = al.LatentSpec({"z": al.Field((20000,))})
POINTS = (-9.0, -7.3, -1.0, -0.5, 3.0, 4.0, 4.1, 12.0)


def path(seeds=(1, 2), spec=SPEC):
    return al.Noise(list(seeds)).path(spec.blank(len(seeds), dtype=torch.float64))


def moved(walk, before, after):
    """W(τ') - W(τ) at the points of the tree."""
    cell = 2 * RANGE / 2**DEPTH
    near = [round((point + RANGE) / cell) * cell - RANGE for point in (before, after)]
    return math.sqrt(math.exp(near[1]) - math.exp(near[0])) * walk.between(before, after)["z"]


def test_increments_are_standard_normal_and_independent():
    walk = path()
    z = torch.stack([walk.between(a, b)["z"] for a, b in zip(POINTS, POINTS[1:], strict=False)], 1)
    count = z.shape[-1]
    assert float(z.mean(-1).abs().max()) < 4.5 / math.sqrt(count)
    assert float((z.var(-1) - 1).abs().max()) < 4.5 * math.sqrt(2 / count)
    for sample in z:
        assert float(torch.corrcoef(sample).triu(1).abs().max()) < 4.5 / math.sqrt(count)
    assert float(torch.corrcoef(z[:, 0]).triu(1).abs().max()) < 4.5 / math.sqrt(count)


def test_increments_add_up():
    walk = path()
    parts = moved(walk, -1.0, -0.5) + moved(walk, -0.5, 3.0)
    assert torch.allclose(parts, moved(path(), -1.0, 3.0), atol=1e-5)


def test_the_order_of_questions_does_not_matter():
    walk = path()
    walk.between(5.0, 6.0)
    later = walk.between(-2.0, 1.0)["z"]
    assert torch.equal(later, path().between(-2.0, 1.0)["z"])


def test_each_sample_has_its_own_path_at_its_own_points():
    joint = path().between(torch.tensor([-1.0, 2.0]), torch.tensor([3.0, 7.0]))["z"]
    for i, (seed, ends) in enumerate(((1, (-1.0, 3.0)), (2, (2.0, 7.0)))):
        assert torch.allclose(joint[i], path([seed]).between(*ends)["z"][0], atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_a_path_is_its_own_whatever_the_others_were_asked(seed):
    """Samples that go up at steps of their own and take every other one again, half as long, as
    those of an adaptive solver do: deep nodes are asked again and again."""
    spec = al.LatentSpec({"z": al.Field((4,))})
    steps = 3 * torch.rand(24, 3, generator=torch.Generator().manual_seed(seed)).double() ** 3
    at, asked = torch.full((3,), -9.0, dtype=torch.float64), []
    for step in steps:
        asked += [(at, at + step), (at, at + step / 2)]
        at = at + step / 2
    walk = path([0, 1, 2], spec)
    joint = [walk.between(*ends)["z"] for ends in asked]
    for i in range(3):
        for found, ends in zip(joint, asked, strict=True):
            fresh = path([i], spec).between(*(float(end[i]) for end in ends))["z"][0]
            assert torch.allclose(found[i], fresh, atol=1e-9)


def test_frames_have_points_of_their_own():
    spec = al.testing.SPECS["video"]
    before = torch.tensor([[-1.0, 0.0, 2.0]] * 2)
    after = torch.tensor([[1.0, 0.5, 9.0]] * 2)
    found = path(spec=spec).between(before, after)["z"]
    for k in range(3):
        whole = path(spec=spec).between(float(before[0, k]), float(after[0, k]))["z"]
        assert torch.allclose(found[:, k], whole[:, k], atol=1e-12)


def test_steps_within_one_place_of_the_tree_are_independent():
    walk, tiny = path(), RANGE / 2**DEPTH / 8
    points = [1.0 + k * tiny for k in range(4)]
    z = [walk.between(a, b)["z"][0] for a, b in zip(points, points[1:], strict=False)]
    assert all(abs(float(x.var()) - 1) < 0.05 for x in z)
    assert float(torch.corrcoef(torch.stack(z)).triu(1).abs().max()) < 0.04


@pytest.mark.parametrize("key", al.testing.SPECS)
def test_a_path_lies_in_the_subspace_and_knows_no_neighbours(key):
    blank = al.testing.example(al.testing.SPECS[key])
    joint = al.Noise.of(3, 4).path(blank).between(-2.0, 1.5)
    assert al.testing.in_subspace(joint)
    for i in range(4):
        own = al.Noise.of(3, [i]).path(alone(blank, i)).between(-2.0, 1.5)
        for name, z in own.parts.items():
            assert torch.allclose(z, alone(joint, i)[name], atol=1e-12)


def test_two_paths_and_two_draws_of_one_noise_differ():
    noise, blank = al.Noise([0]), SPEC.blank(1, dtype=torch.float64)
    drawn = [noise.path(blank).between(0.0, 1.0), noise.like(blank)]
    drawn += [noise.path(blank).between(0.0, 1.0), noise.like(blank)]
    z = torch.stack([x["z"][0] for x in drawn])
    assert float(torch.corrcoef(z).triu(1).abs().max()) < 0.04
