"""The tensor-product backbone: exact symmetries, e3nn as the reference of its parts, learning."""

import copy
import importlib.util
import subprocess
import sys

import pytest
import torch

import anylatent as al
from anylatent.core.latents.condition import Condition, ConditionSpec
from anylatent.core.latents.latent import Latent
from anylatent.core.latents.noise import Noise
from anylatent.core.latents.spec import Field, LatentSpec
from anylatent.core.support.packages import MissingPackage
from anylatent.core.testing.examples import alone, distance, example, spoil
from anylatent.modalities.molecule import irreps
from anylatent.modalities.molecule.tensor_product import (
    Geometry,
    TensorProductNetwork,
    neighbourhood,
)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("e3nn") is None, reason="e3nn is not installed: anylatent[molecule]"
)
SMALL = {"scalars": 16, "vectors": 8, "tensors": 4, "depth": 3, "embedding": 32, "radial": 16}
LEVELS = torch.tensor([-2.5, 0.0, 1.0, 4.0], dtype=torch.float64)


def network(**settings):
    """With random numbers for what starts at zero, so that every path matters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = TensorProductNetwork(**{**SMALL, **settings})
        for parameter in net.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
    return net.eval()


def built_in_float64(**settings):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return network(**settings)
    finally:
        torch.set_default_dtype(before)


def turned_into_float64(**settings):
    """Through half precision and a copy: what is rounded on the way must not stay so."""
    return copy.deepcopy(network(**settings).bfloat16()).double()


def loaded_into_float64(**settings):
    net = built_in_float64(**settings)
    net.load_state_dict(network(**settings).state_dict())
    return net


def noisy(spec=None, seed=0):
    return Noise.of(seed, 4).like(example(spec or al.testing.SPECS["molecule"]))


def orthogonal(improper):
    matrix = torch.linalg.qr(
        torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    )[0]
    return matrix if bool(torch.det(matrix) < 0) == improper else -matrix


@pytest.mark.parametrize(
    "settings",
    ({}, {"tensors": 0}, {"cutoff": 1.5}, {"depth": 1}, {"narrow": 3, "basis": 2}),
    ids=str,
)
def test_the_contract_of_backbones(settings):
    settings = {**SMALL, **settings}
    al.testing.check_backbone(lambda conditions: TensorProductNetwork(None, conditions, **settings))


def test_the_contract_with_scalar_conditions_and_defaults():
    spec = ConditionSpec(scalars=["gap"], classes={"kind": 3})
    al.testing.check_backbone(lambda conditions: TensorProductNetwork(None, conditions), spec)


def test_the_output_is_zero_at_first():
    net = TensorProductNetwork(al.testing.SPECS["molecule"], **SMALL).double()
    out = net(noisy(), LEVELS)
    assert all((part == 0).all() for part in out.parts.values())


@pytest.mark.parametrize("improper", (False, True), ids=("rotation", "reflection"))
@pytest.mark.parametrize("cutoff", (0.0, 1.5))
@pytest.mark.parametrize("build", (built_in_float64, turned_into_float64, loaded_into_float64))
def test_turned_and_moved_points_give_turned_outputs(build, cutoff, improper):
    net, x, turn = build(cutoff=cutoff), noisy(), orthogonal(improper)
    mask = x.masks["x"][..., None]
    moved = torch.where(mask, x["x"] @ turn.T + torch.tensor([3.0, -5.0, 0.4]).double(), 0)
    with torch.no_grad():
        before = net(x, LEVELS)
        after = net(Latent({"x": moved, "h": x["h"]}, x.masks, x.spec), LEVELS)
    assert min(float(part.abs().max()) for part in before.parts.values()) > 0.1
    assert (before["x"] @ turn.T - after["x"]).abs().max() < 1e-12
    assert (before["h"] - after["h"]).abs().max() < 1e-12


def test_mirror_images_are_not_told_apart():
    """A chiral arrangement of four different points and its mirror image: h is the same."""
    spec = al.testing.SPECS["molecule"]
    net, x = built_in_float64(), Noise.of(3, 1).like(spec.blank(1, [4], dtype=torch.float64))
    mirror = x["x"] * torch.tensor([-1.0, 1.0, 1.0])
    assert torch.linalg.det(x["x"][0, 1:] - x["x"][0, :1]).abs() > 0.1
    first, second = net(x, LEVELS[:1]), net(x.replace(x=mirror), LEVELS[:1])
    assert (first["h"] - second["h"]).abs().max() < 1e-12 < first["h"].abs().max()


@pytest.mark.parametrize("cutoff", (0.0, 1.5))
def test_permuted_points_give_permuted_outputs(cutoff):
    net, x = built_in_float64(cutoff=cutoff), noisy()
    order = torch.stack(
        [torch.randperm(9, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    )
    rows = torch.arange(4)[:, None]
    masks = {name: mask[rows, order] for name, mask in x.masks.items()}
    shuffled = Latent({k: part[rows, order] for k, part in x.parts.items()}, masks, x.spec)
    before, after = net(x, LEVELS), net(shuffled, LEVELS)
    for name, part in before.parts.items():
        assert (part[rows, order] - after[name]).abs().max() < 1e-12


def test_padding_of_any_length_and_content_changes_nothing():
    net, x = built_in_float64(), noisy()
    wide = example(x.spec, padded=40)
    wide = Latent(
        {k: torch.cat((part, wide[k][:, 9:]), 1) for k, part in x.parts.items()},
        wide.masks,
        x.spec,
    )
    before = net(x, LEVELS)
    for value in (torch.inf, torch.nan, 1e30):
        after = net(spoil(wide, value), LEVELS)
        for i in range(4):
            assert distance(alone(before, i), alone(after, i)) < 1e-12
        assert all((after[k][:, 9:] == 0).all() for k in after.parts)


def test_a_copy_has_the_same_state_and_no_constants_in_it():
    net = network()
    twin = copy.deepcopy(net)
    assert list(twin.state_dict()) == list(net.state_dict())
    assert {k for k, _ in net.named_parameters()} == set(net.state_dict())
    x, levels = noisy().to(torch.float32), LEVELS.float()
    assert distance(net(x, levels), twin(x, levels)) == 0


@pytest.mark.parametrize("degree", (1, 2))
def test_features_of_higher_degree_matter(degree):
    """Without them, half-way, the outputs for points and for features are others."""
    net, x = built_in_float64(), noisy()
    sizes = (SMALL["scalars"], SMALL["vectors"], SMALL["tensors"])
    before = net(x, LEVELS)

    def remove(block, inputs, output):
        pieces = irreps.parts(output, sizes)
        assert pieces[degree].abs().max() > 0.1
        return torch.cat([p.flatten(1) * (i != degree) for i, p in enumerate(pieces)], -1)

    net.blocks[1].register_forward_hook(remove)
    after = net(x, LEVELS)
    for name in ("x", "h"):
        assert (before[name] - after[name]).abs().max() > 0.02 * before[name].abs().max()


def test_pairs_are_all_of_one_sample_and_no_others():
    x = noisy()
    rows = neighbourhood(x.masks["x"], spoil(x)["x"])
    assert len(rows.points) == 5 + 9 + 2 + 7
    assert len(rows.target) == 5 * 4 + 9 * 8 + 2 * 1 + 7 * 6
    assert (rows.sample[rows.target] == rows.sample[rows.source]).all()
    assert (rows.target != rows.source).all()
    assert len({*zip(rows.target.tolist(), rows.source.tolist(), strict=True)}) == len(rows.target)
    near = neighbourhood(x.masks["x"], spoil(x)["x"], 1.5)
    r = x["x"].flatten(0, 1)[rows.points]
    kept = (r[rows.source] - r[rows.target]).norm(dim=-1) < 1.5
    assert 0 < int(kept.sum()) < len(kept)
    assert torch.equal(near.target, rows.target[kept])
    assert torch.equal(near.source, rows.source[kept])


def test_messages_fade_smoothly_at_the_cutoff():
    spec = al.testing.SPECS["molecule"]
    blank = spec.blank(1, [2], dtype=torch.float64)
    h = torch.randn(1, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def at(gap, net):
        points = torch.tensor([[[gap / 2, 0, 0], [-gap / 2, 0, 0]]], dtype=torch.float64)
        return net(Latent({"x": points, "h": h}, blank.masks, spec), LEVELS[:1])["h"]

    net, free = built_in_float64(cutoff=2.0), built_in_float64()
    assert (at(2.0 - 1e-3, net) - at(2.0 + 1e-3, net)).abs().max() < 1e-6
    assert (at(2.5, net) - at(3.5, net)).abs().max() == 0
    assert (at(1.0, net) - at(1.5, net)).abs().max() > 1e-3
    assert (at(2.5, free) - at(3.5, free)).abs().max() > 1e-3


def test_features_of_distance_tell_bonds_apart_at_the_scale_of_the_input():
    """Lengths a twentieth of a unit apart, between 0.3 and 6 units, differ in some feature."""
    geometry = Geometry(32)
    for length in (0.3, 0.8, 2.0, 6.0):
        x = torch.tensor([[[0.0, 0, 0], [length, 0, 0]], [[0.0, 0, 0], [length + 0.05, 0, 0]]])
        rows = neighbourhood(torch.ones(2, 2, dtype=torch.bool), x)
        first, _, second, _ = geometry(x.flatten(0, 1), rows).basis
        assert (first - second).abs().max() > 0.02


def test_single_points_and_points_on_one_another_are_finite_to_the_gradients():
    spec = al.testing.SPECS["molecule"]
    net = network()
    x = Noise.of(0, 2).like(spec.blank(2, [1, 4]))
    points = x["x"].clone()
    points[1, 1] = points[1, 0]
    x = x.replace(x=points)
    out = net(x, torch.zeros(2))
    (out["x"].square().sum() + out["h"].square().sum()).backward()
    assert all(part.isfinite().all() for part in out.parts.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    only = net(alone(x, 0), torch.zeros(1))
    assert distance(only, alone(out, 0)) < 1e-5 and only["h"].abs().max() > 0


def test_bfloat16_autocast_stays_near():
    net, x = network(), noisy().to(torch.float32)
    with torch.no_grad():
        exact = net(x, LEVELS.float())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rough = net(x, LEVELS.float())
    assert rough.dtype == torch.float32
    largest = max(float(part.abs().max()) for part in exact.parts.values())
    assert 0 < distance(exact, rough) < 0.1 * largest


def test_maps_are_laid_over_the_features():
    net = network(conditions=ConditionSpec(maps={"given": 2})).double()
    x = noisy()
    given = torch.randn(4, 9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    broken = given.masked_fill(~x.masks["h"][..., None], torch.nan)
    first, second = (net(x, LEVELS, Condition({"given": g})) for g in (given, broken))
    assert distance(first, second) == 0
    assert distance(first, net(x, LEVELS)) > 0.01


TOYS = {  # heavy and light atoms as (kind, position): water, ammonia (flattened), a bent chain
    "water": [(1, 0, 0, 0), (0, 0.76, 0.59, 0), (0, -0.76, 0.59, 0)],
    "ammonia": [
        (2, 0, 0, 0.1),
        (0, 0.94, 0, -0.3),
        (0, -0.47, 0.81, -0.3),
        (0, -0.47, -0.81, -0.3),
    ],
    "chain": [(1, -1.2, 0.6, 0), (2, 0, 0, 0), (2, 1.4, 0.2, 0.5), (1, 2.0, 1.1, 1.1)],
}


def toys(copies):
    """Randomly turned copies of the toys, as a latent of points and one-hot kinds."""
    spec = LatentSpec({"x": Field((None, 3), centred=True), "h": Field((None, 3))})
    molecules = [torch.tensor(m, dtype=torch.float32) for m in TOYS.values()] * copies
    parts = {"x": torch.zeros(len(molecules), 4, 3), "h": torch.zeros(len(molecules), 4, 3)}
    turns = torch.linalg.qr(
        torch.randn(len(molecules), 3, 3, generator=torch.Generator().manual_seed(5))
    )[0]
    for i, molecule in enumerate(molecules):
        parts["x"][i, : len(molecule)] = molecule[:, 1:] @ turns[i].T
        parts["h"][i, : len(molecule)] = torch.eye(3)[molecule[:, 0].long()]
    mask = torch.arange(4) < torch.tensor([[len(m)] for m in molecules])
    return spec.wrap(parts, {"x": mask, "h": mask})


def test_it_learns_to_denoise_molecules():
    """60 steps more than halve the error at SNR e³, on molecules turned as it has not seen them."""
    x0, unseen = toys(16), toys(64).select(torch.arange(100, 190))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = TensorProductNetwork(x0.spec, **SMALL)
    schedule = al.get("schedule", "vp")()
    denoiser = al.Preconditioned(net, schedule, al.get("prediction", "edm")(0.5), 0.5)
    t = schedule.time(torch.tensor(3.0, dtype=torch.float64))

    def error(clean, seed):
        noise = Noise.of(seed, clean.batch).like(clean)
        return denoiser(schedule.alpha(t) * clean + schedule.sigma(t) * noise, t).mse(clean).mean()

    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    before = float(error(unseen, 10**6).detach())
    for step in range(60):
        optimiser.zero_grad()
        error(x0, step).backward()
        optimiser.step()
    assert float(error(unseen, 10**6).detach()) < 0.45 * before


def test_other_spaces_and_settings_are_errors():
    for spec in (
        LatentSpec({"z": Field((4, 8, 8))}),
        LatentSpec({"x": Field((None, 3)), "h": Field((None, 2))}),
        LatentSpec({"x": Field((None, 3), centred=True), "h": Field((4,))}),
    ):
        with pytest.raises(ValueError, match=r"centred points \(None, 3\) and features"):
            TensorProductNetwork(spec, **SMALL)
    for settings in ({"scalars": 0}, {"vectors": 0}, {"tensors": -1}, {"depth": 0}, {"narrow": 0}):
        with pytest.raises(ValueError, match="at least"):
            TensorProductNetwork(**{**SMALL, **settings})
    with pytest.raises(ValueError, match="basis ≥ 2 and cutoff ≥ 0, got 1"):
        TensorProductNetwork(**{**SMALL, "basis": 1})
    with pytest.raises(ValueError, match=r"one noise level per sample, shape \(4,\), got \(4, 9\)"):
        network()(noisy().to(torch.float32), torch.zeros(4, 9))


def test_without_e3nn_the_error_names_the_extra(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "e3nn"] + ["e3nn"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackage, match=r"backbone=tensor_product .*anylatent\[molecule\]"):
        TensorProductNetwork(**SMALL)


def test_importing_the_class_does_not_import_e3nn():
    code = (
        "import sys; import anylatent.modalities.molecule.tensor_product; "
        "assert not {'e3nn', 'torch_geometric', 'rdkit'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
