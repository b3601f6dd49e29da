"""The law of a molecule around a latent: what its decoder and what data space say."""

import math

import pytest
import torch

import anylatent as al

ELEMENTS, CHARGES = ("H", "C", "N", "O", "F"), (-1, 0, 1)
SIZES = ((1, 2), (3, 5), (4, 1))


def batch(sizes, padded=None, seed=0):
    """Random molecules in float64, each drawn by itself."""
    longest, noise = padded or max(sizes), al.Noise.of(seed, len(sizes))
    mask = torch.arange(longest) < torch.tensor(sizes)[:, None]
    x, kinds = torch.zeros(len(sizes), longest, 3).double(), torch.zeros(len(sizes), longest, 2)
    drawn, numbers = noise.normal(6, 3).double(), noise.uniform(6, 2)
    for i, n in enumerate(sizes):
        x[i, :n] = drawn[i, :n] - drawn[i, :n].mean(0)
        kinds[i, :n] = numbers[i, :n].float()
    element = (kinds[..., 0] * len(ELEMENTS)).long() * mask
    charge = ((kinds[..., 1] * len(CHARGES)).long() - 1) * mask
    return {"x": x, "element": element, "charge": charge, "mask": mask,
            "atoms": torch.tensor(sizes)}  # fmt: skip


def parts():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        geoldm = al.get("autoencoder", "geoldm")(ELEMENTS, CHARGES, width=16, edge=8).double()
    modality = al.get("modality", "molecule")(ELEMENTS, CHARGES, SIZES)
    return {"geoldm": geoldm.eval(), "identity": al.get("autoencoder", "identity")(modality)}


PARTS = parts()


def near(part, data, seed=1):
    """A latent near the posterior's mean."""
    mean = part.encode(data).mean
    return mean + 0.05 * al.Noise.of(seed, mean.batch).like(mean)


@pytest.mark.parametrize("name", PARTS)
def test_the_probabilities_of_all_kinds_of_an_atom_add_up(name):
    """A single atom has no position, 5 elements and 3 charges."""
    part, one = PARTS[name], batch([1] * 15)
    z = near(part, batch([1])).select(torch.zeros(15, dtype=torch.long))
    one["element"] = torch.arange(5).repeat(3)[:, None]
    one["charge"] = torch.arange(3).repeat_interleave(5)[:, None] - 1
    total = float(part.log_prob(one, z).detach().exp().sum())
    assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", PARTS)
def test_positions_have_a_density_on_the_centred_subspace(name):
    """Of two atoms, 3 numbers u = (x₁ - x₂)/√2: a Gaussian, or a mixture of its scales."""
    part, data = PARTS[name], batch([2])
    z, gaps, found = near(part, data), (0.0, 0.02, 0.3), []
    move = torch.tensor([[[1.0, 0, 0], [-1.0, 0, 0]]]).double() / math.sqrt(2)
    if name == "geoldm":
        centre = part._decode(z["x"], z["h"], data["mask"])[0]
    else:
        centre = z["x"]
    for gap in gaps:
        found.append(float(part.log_prob({**data, "x": centre + gap * move}, z).detach()))

    def density(gap):
        scales = [part.x_scale] if name == "geoldm" else [2 ** (-k / 2) for k in range(25)]
        each = [math.exp(-0.5 * (gap / s) ** 2) / (s * math.sqrt(2 * math.pi)) ** 3 for s in scales]
        return math.log(sum(each) / len(each))

    for gap, value in zip(gaps, found, strict=True):
        assert value - found[0] == pytest.approx(density(gap) - density(0.0), rel=1e-6)


@pytest.mark.parametrize("name", PARTS)
def test_neither_neighbours_nor_padding_nor_rotations(name):
    part, data = PARTS[name], batch([3, 5, 1])
    z = near(part, data)
    found = part.log_prob(data, z).detach()
    assert found.shape == (3,) and found.dtype == torch.float64
    wide = batch([3, 5, 1], padded=9)
    assert torch.allclose(part.log_prob(wide, near(part, wide)).detach(), found)
    for i in range(3):
        own = {key: value[i : i + 1] for key, value in data.items()}
        alone = part.log_prob(own, z.select(slice(i, i + 1))).detach()
        assert torch.allclose(alone, found[i : i + 1])
    turn = torch.linalg.qr(al.Noise.of(3, 1).normal(3, 3)[0].double()).Q
    turned = part.log_prob({**data, "x": data["x"] @ turn}, z.replace(x=z["x"] @ turn)).detach()
    assert torch.allclose(turned, found)


def test_the_law_of_geoldm_is_what_its_loss_is_of():
    """-log p = dim·position + atoms·(element + charge) and the Gaussian's constant."""
    part, data = PARTS["geoldm"], batch([3, 5, 2])
    part.x_std, own = 1e-9, part.x_std
    noise = al.Noise.of(0, 3)
    z, _ = part.bottleneck(part._encode(data)[1], al.Noise.of(0, 3))
    terms, _ = part.loss(data, noise, 0)
    part.x_std = own
    place = part._encode(data)[0]
    latent = al.Latent({"x": place["x"], "h": z["h"]}, place.masks | z.masks, part.spec)
    dim, atoms = 3.0 * (data["atoms"] - 1), data["atoms"]
    wanted = dim * terms["position"] + atoms * (terms["element"] + terms["charge"])
    wanted = wanted + dim * (math.log(part.x_scale) + 0.5 * math.log(2 * math.pi))
    assert torch.allclose(-part.log_prob(data, latent), wanted, rtol=1e-5)


def test_sizes_and_units():
    """Every size up to the largest is possible, none beyond."""
    modality = al.get("modality", "molecule")(ELEMENTS, CHARGES, SIZES)
    spec = modality.data_space.spec
    nats = modality.sizes.nats(spec.blank(4, [1, 2, 3, 4]))
    assert float((-nats).exp().sum()) == pytest.approx(1)
    assert float(nats[2]) == pytest.approx(-math.log(6 / 12))
    assert math.isinf(float(modality.sizes.nats(spec.blank(1, [5]))))
    name, count = modality.unit(batch([3, 5]))
    assert name == "atom" and count.tolist() == [3, 5]
    unknown = al.get("modality", "molecule")(ELEMENTS, CHARGES)
    assert unknown.sizes.nats(spec.blank(2, [3, 4])).tolist() == [0, 0]
