"""Autoencoders and backbones of pictures."""

import pytest
import torch

from anylatent.core.latents.condition import Condition, ConditionSpec, token_condition
from anylatent.core.latents.noise import Noise
from anylatent.core.nn.bottleneck import KL
from anylatent.core.nn.quantise import VQ
from anylatent.core.nn.unet import UNet
from anylatent.modalities.image.autoencoder import ConvAutoencoder
from anylatent.modalities.image.discriminator import PatchDiscriminator
from anylatent.modalities.image.dit import DiT

SMALL = {UNet: {"channels": 16, "embedding": 32, "blocks": 1}, DiT: {"width": 32, "depth": 2}}
CONDITIONS = ConditionSpec(classes={"c": 5}, tokens={"t": 6}, maps={"m": 2})


def awake(module: torch.nn.Module) -> torch.nn.Module:
    """Gives what starts at zero small random values, so that every path matters."""
    torch.manual_seed(3)
    for parameter in module.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return module.eval()


def condition(batch: int = 3) -> Condition:
    torch.manual_seed(4)
    mask = torch.arange(4) < torch.tensor([[4], [2], [0]])[:batch]
    return Condition(
        {
            "c": torch.arange(batch),
            "t": token_condition(torch.randn(batch, 4, 6), mask),
            "m": torch.randn(batch, 2, 8, 8),
        }
    )


@pytest.mark.parametrize("kind", [UNet, DiT])
def test_backbones_start_at_zero_and_every_condition_reaches_the_output(kind):
    start = kind(**SMALL[kind])
    x = start.spec.blank(3).map(torch.randn_like)
    assert (start(x, torch.zeros(3))["z"] == 0).all()
    backbone = awake(kind(conditions=CONDITIONS, **SMALL[kind]))
    c_noise, cond = torch.tensor([-5.0, 0.0, 5.0]), condition()
    full = backbone(x, c_noise, cond)["z"]
    for name in cond.values:
        assert not torch.allclose(backbone(x, c_noise, cond.null(name))["z"], full), name
    assert not torch.allclose(backbone(x, c_noise + 1, cond)["z"], full)
    assert torch.allclose(
        backbone(x, c_noise, cond.null())["z"], backbone(x, c_noise)["z"], atol=1e-5
    )


@pytest.mark.parametrize("kind", [UNet, DiT])
def test_backbones_treat_each_sample_alone(kind):
    backbone = awake(kind(conditions=CONDITIONS, **SMALL[kind]))
    x, c_noise, cond = backbone.spec.blank(3).map(torch.randn_like), torch.randn(3), condition()
    together = backbone(x, c_noise, cond)["z"]
    for i in range(3):
        one = slice(i, i + 1)
        alone = backbone(x.select(one), c_noise[one], cond.select(one))["z"]
        assert torch.allclose(alone, together[one], atol=1e-5)


@pytest.mark.parametrize("kind", [UNet, DiT])
def test_every_parameter_learns_within_a_few_steps(kind):
    torch.manual_seed(0)
    backbone = kind(conditions=CONDITIONS, **SMALL[kind])
    before = {name: value.clone() for name, value in backbone.named_parameters()}
    optimizer = torch.optim.Adam(backbone.parameters(), 1e-2)
    x, cond = backbone.spec.blank(3).map(torch.randn_like), condition()
    for step in range(4):
        known = cond if step % 2 else cond.null()
        loss = backbone(x, torch.randn(3), known).mse(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    still = [n for n, value in backbone.named_parameters() if torch.equal(value, before[n])]
    assert not still


@pytest.mark.parametrize("bottleneck", [KL, VQ])
@pytest.mark.parametrize(("factor", "patch"), [(2, 1), (4, 2), (8, 2), (16, 4)])
def test_autoencoders_of_every_factor(bottleneck, factor, patch):
    shape = (3, 32, 48)
    autoencoder = ConvAutoencoder(
        shape, bottleneck(), factor=factor, patch=patch, channels=8, blocks=1, heads=2
    )
    assert autoencoder.spec.fields["z"].shape == (4, 32 // factor, 48 // factor)
    batch = {"image": torch.rand(2, *shape) * 2 - 1}
    terms, output = autoencoder.loss(batch, Noise.of(0, 2), 0)
    assert output.shape == batch["image"].shape
    assert all(term.shape == (2,) for term in terms.values())
    difference = output - batch["image"]
    assert torch.allclose(terms["l1"], difference.abs().flatten(1).mean(1))
    torch.stack([term.mean() for term in terms.values()]).sum().backward()
    assert all(p.grad is not None for p in autoencoder.parameters())


def test_wrong_sizes_are_errors_that_say_what_is_allowed():
    with pytest.raises(ValueError, match="factor"):
        ConvAutoencoder(factor=3)
    with pytest.raises(ValueError, match="30"):
        ConvAutoencoder((3, 30, 30))
    with pytest.raises(ValueError, match="pictures"):
        ConvAutoencoder(channels=8).encode({"image": torch.zeros(1, 1, 32, 32)})


def test_encoding_treats_each_picture_alone_and_the_latent_carries_the_picture():
    torch.manual_seed(0)
    autoencoder = awake(ConvAutoencoder(channels=8, blocks=1))
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    together = autoencoder.encode({"image": images}).mean["z"]
    alone = autoencoder.encode({"image": images[2:3]}).mean["z"]
    assert torch.allclose(together[2:3], alone, atol=1e-5)
    decoded = autoencoder.decode(autoencoder.encode({"image": images}).mean)
    restored = autoencoder.restore(autoencoder.encode({"image": images}).mean)
    assert torch.equal(restored["z"], decoded.tensor)
    assert restored.spec.fields["z"].shape == (3, 32, 32)
    assert not torch.allclose(decoded[0], decoded[1])


def test_the_adversary_is_trained_and_trains_the_decoder_once_it_has_started_10605():
    torch.manual_seed(0)
    autoencoder = ConvAutoencoder(
        channels=8, blocks=1, adversary=lambda: PatchDiscriminator(channels=8), adversary_start=5
    )
    autoencoder.equip()
    assert autoencoder.adversary is not None
    batch = {"image": torch.rand(2, 3, 32, 32) * 2 - 1}
    early, output = autoencoder.loss(batch, Noise.of(0, 2), 4)
    assert "adversarial" not in early and not autoencoder.adversary_loss(batch, output, 4)
    terms, output = autoencoder.loss(batch, Noise.of(0, 2), 5)
    assert terms["adversarial"].shape == (2,) and terms["adversarial"].requires_grad
    critic = autoencoder.adversary_loss(batch, output, 5)
    autoencoder.zero_grad()
    (critic["real"].mean() + critic["fake"].mean()).backward()
    assert all(p.grad is not None for p in autoencoder.adversary.parameters())
    assert autoencoder.decoder.last.grad is None  # the critic does not pull at the decoder
