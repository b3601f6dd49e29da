"""Features of the noise level, a part of every backbone."""

import math

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

import anylatent as al
from anylatent.core.cli.configs import publish
from anylatent.core.nn.embedding import FourierFeatures, SinusoidalFeatures
from anylatent.core.registry.building import build
from anylatent.core.registry.store import get, part

SMALL = {
    "unet": {"channels": 32, "embedding": 64},
    "dit": {"width": 64, "depth": 1},
    "egnn": {"width": 32, "edge": 16, "depth": 1},
    "mlp": {"width": 64, "depth": 1},
    "transformer": {"width": 64, "depth": 1},
    "tensor_product": {"scalars": 16, "vectors": 8, "tensors": 4, "depth": 1},
}


def composed(*overrides):
    publish("train", get("command", "train")())
    with initialize_config_module("anylatent.conf", version_base="1.3"):
        config = compose("train", ["run=somewhere", *overrides])
        return OmegaConf.to_container(config, resolve=True)


def test_random_fourier_features_are_fixed_random_waves():
    torch.manual_seed(0)
    part = FourierFeatures(4000, bandwidth=0.5)
    x = torch.tensor([0.3, 0.6])
    found = part(x)
    angle = x[:, None] * part.frequencies
    assert torch.allclose(found, torch.cat([angle.cos(), angle.sin()], -1), atol=1e-5)
    # of N(0, (2π·bandwidth)²), so products average to a Gaussian of the distance (Bochner)
    alike = float(found[0] @ found[1]) / 2000
    assert alike == pytest.approx(math.exp(-0.5 * (math.pi * 0.3) ** 2), abs=0.04)
    assert "frequencies" in part.state_dict() and not list(part.parameters())


@pytest.mark.parametrize("name", al.names("backbone"))
def test_every_backbone_takes_features_and_is_moved_by_the_noise_level(name):
    if "image" in part("backbone", name).parts:
        pytest.skip("those of the network of pictures")
    assert "features" in part("backbone", name).parts, f"backbone={name} has no `features`"
    torch.manual_seed(0)
    node = {"name": name, **SMALL[name], "features": {"name": "fourier", "size": 32}}
    chosen = build("backbone", node)
    assert isinstance(chosen.noise.features, FourierFeatures)
    assert chosen.noise.first.in_features == 32
    plain = build("backbone", {"name": name, **SMALL[name]})
    assert isinstance(plain.noise.features, SinusoidalFeatures)
    for parameter in chosen.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x = al.Noise.of(0, 4).like(al.testing.example(chosen.spec, dtype=torch.float32))
    with torch.no_grad():
        near, far = (chosen(x, torch.full((4,), level)) for level in (-2.0, 2.0))
    assert bool(((near - far).norm() > 0).all())


@pytest.mark.parametrize("modality", ("image", "molecule", "text"))
def test_features_are_chosen_and_set_from_the_command_line(modality):
    chosen = ["features@backbone.features=fourier", "backbone.features.bandwidth=0.25"]
    config = composed(f"modality={modality}", *chosen)
    assert config["backbone"]["features"] == {"name": "fourier", "size": 128, "bandwidth": 0.25}
    built = build("backbone", {**config["backbone"], **SMALL[config["backbone"]["name"]]})
    assert isinstance(built.noise.features, FourierFeatures)
    assert composed(f"modality={modality}")["backbone"]["features"]["name"] == "sinusoidal"
