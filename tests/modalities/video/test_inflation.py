"""A network of pictures as one of clips: the same at the start, and what layers over time add."""

from functools import partial

import pytest
import torch

import anylatent as al
from anylatent.core.latents import Condition, ConditionSpec
from anylatent.core.runs.sources import tuned
from anylatent.modalities.video.backbone import Inflated
from anylatent.modalities.video.temporal import (
    AttentionOverTime,
    ConvolutionOverTime,
    Temporal,
)
from anylatent.modalities.video.tuning import TemporalTuning
from tests.modalities.video.small import DIT, UNET

SPEC = al.LatentSpec({"z": al.Field((None, 4, 8, 8), channels=1)})
CONDITIONS = ConditionSpec(classes={"kind": 3}, tokens={"words": 5})
KINDS = {"unet": UNET, "dit": DIT}
LENGTHS = torch.tensor([5, 2, 4])


def woken(network, seed=0):
    """With weights that are nowhere zero, as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if not name.endswith("gate"):
                p.add_(0.05 * torch.randn(p.shape, generator=generator))
    return network


@pytest.fixture(params=KINDS)
def made(request):
    torch.manual_seed(0)
    return woken(Inflated(SPEC, CONDITIONS, KINDS[request.param])).eval()


@pytest.fixture
def clips():
    return al.Noise.of(3, 3).like(SPEC.blank(3, LENGTHS))


def condition(n=3):
    words = torch.randn(n, 4, 5, generator=torch.Generator().manual_seed(1))
    spec = al.LatentSpec({"tokens": al.Field((None, 5))})
    value = al.Latent({"tokens": words}, {"tokens": torch.ones(n, 4, dtype=torch.bool)}, spec)
    return Condition({"kind": torch.arange(n), "words": value})


LEVELS = torch.tensor([-1.0, 0.5, 2.0])


def opened(network, gate=0.7):
    """With layers over time that have a say."""
    with torch.no_grad():
        for name, p in network.named_parameters():
            if name.endswith("gate"):
                p.fill_(gate)
    return network


# ---- at the start -----------------------------------------------------------------------------
@torch.no_grad()
def test_it_is_the_network_of_pictures_on_the_folded_batch_bit_for_bit(made, clips):
    found = made(clips, LEVELS, condition())["z"]
    folded = al.Latent({"z": clips["z"].flatten(0, 1)}, {}, made.frame)
    index = torch.arange(3).repeat_interleave(5)
    alone = made.image(folded, LEVELS[index], condition().select(index))["z"].unflatten(0, (3, 5))
    mask = clips.masks["z"]
    assert torch.equal(found[mask], alone[mask]) and not found[~mask].any()


@torch.no_grad()
def test_a_frame_alone_is_nearly_the_same(made, clips):
    found = made(clips, LEVELS, condition())["z"]
    for row, frame in ((0, 0), (0, 4), (2, 3)):
        one = al.Latent({"z": clips["z"][row, frame][None]}, {}, made.frame)
        alone = made.image(one, LEVELS[row : row + 1], condition().select(slice(row, row + 1)))
        assert torch.allclose(found[row, frame], alone["z"][0], atol=1e-5)


def test_some_layer_over_time_has_a_gradient_at_once_and_all_move_soon(made, clips):
    target = al.Noise.of(9, 3).like(clips)
    kept = {name: value.clone() for name, value in made.state_dict().items()}
    with tuned(TemporalTuning(), {"generator": made}) as names:
        assert names and all(".temporal." in name for name in names)
        optimiser = torch.optim.AdamW((p for p in made.parameters() if p.requires_grad), 1e-2)
        for step in range(20):
            optimiser.zero_grad()
            made(clips, LEVELS, condition()).mse(target).mean().backward()
            if step == 0:
                gates = [p for n, p in made.named_parameters() if n.endswith("gate")]
                assert any(bool(p.grad.any()) for p in gates)
            optimiser.step()
    for name, value in made.state_dict().items():
        moved = not torch.equal(value, kept[name])
        assert moved == name.startswith("temporal."), name


def test_the_layers_are_where_the_network_has_some_over_space():
    unet = Inflated(SPEC, CONDITIONS, UNET)
    kinds = {key: type(layer) for key, layer in unet.temporal.layers.items()}
    assert kinds["down_0_0_cross"] is AttentionOverTime, "after the last of those that attend"
    assert kinds["down_0_0_residual"] is ConvolutionOverTime
    assert not any("attention" in key or "skip" in key or "first" in key for key in kinds)
    dit = Inflated(SPEC, None, DIT).temporal.layers
    assert set(dit) == {f"blocks_{i}_{k}" for i in (0, 1) for k in ("attention", "network")}


# ---- with layers over time --------------------------------------------------------------------
@torch.no_grad()
def test_frames_mix_and_clips_and_padding_do_not(made, clips):
    opened(made)
    found = made(clips, LEVELS, condition())["z"]
    other = clips["z"].clone()
    other[0, 1] += 1.0
    moved = (made(clips.replace(z=other), LEVELS, condition())["z"] - found).abs().amax((2, 3, 4))
    assert bool((moved[0] > 0).all()), "frame 1 changes all frames of its clip"
    assert not moved[1:].any(), "and none of the others"
    other = clips["z"].clone()
    other[1, 2:] = torch.inf
    spoilt = made(al.Latent({"z": other}, clips.masks, SPEC), LEVELS, condition())["z"]
    assert torch.equal(spoilt, found)


@torch.no_grad()
def test_a_clip_is_the_same_alone_and_beside_pictures(made, clips):
    opened(made)
    found = made(clips, LEVELS, condition())["z"]
    for row, length in enumerate(LENGTHS.tolist()):
        one = SPEC.wrap({"z": clips["z"][row : row + 1, :length]}, {"z": torch.ones(1, length) > 0})
        alone = made(one, LEVELS[row : row + 1], condition().select(slice(row, row + 1)))["z"]
        assert torch.allclose(alone[0], found[row, :length], atol=1e-5)


@torch.no_grad()
def test_any_length_works(made):
    opened(made)
    for length in (1, 3, 40):
        x = al.Noise.of(0, 2).like(SPEC.blank(2, torch.tensor([length, 1])))
        found = made(x, LEVELS[:2])["z"]
        assert found.shape == (2, length, 4, 8, 8) and bool(found.isfinite().all())


@torch.no_grad()
def test_attention_over_time_sees_distances_and_not_places():
    torch.manual_seed(0)
    layer = AttentionOverTime(16, heads=2, gate=1.0)
    h = torch.randn(6, 3, 16)
    still = layer.of_tokens(h[:1].expand(6, -1, -1), 1, None)
    assert torch.allclose(still, still[:1].expand_as(still), atol=1e-5)
    late = torch.cat((torch.randn(2, 3, 16), h))  # two frames before, masked out
    mask = torch.tensor([[False, False] + [True] * 6])
    assert torch.allclose(
        layer.of_tokens(late, 1, mask)[2:], layer.of_tokens(h, 1, None), atol=1e-5
    )


@torch.no_grad()
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_convolution_over_time_is_one(kernel):
    torch.manual_seed(0)
    layer = ConvolutionOverTime(8, kernel, gate=1.0)
    h = torch.randn(2 * 7, 8, 3, 4)
    z = torch.nn.functional.silu(layer.norm(h)).unflatten(0, (2, 7)).transpose(1, 2)
    padded = torch.nn.functional.pad(z, (0, 0, 0, 0, kernel // 2, kernel // 2))
    wanted = torch.nn.functional.conv3d(padded, layer.conv.weight, layer.conv.bias)
    found = layer.of_maps(h, 2, None) - h
    assert torch.allclose(found, wanted.transpose(1, 2).flatten(0, 1), atol=1e-5)
    tokens = layer.of_tokens(h.flatten(2).transpose(1, 2), 2, None)
    assert torch.allclose(tokens.transpose(1, 2).view_as(h) - h, found, atol=1e-5)


def test_kernels_have_a_middle():
    with pytest.raises(ValueError, match="odd number"):
        Inflated(SPEC, None, UNET, kernel=2)


def test_other_latents_are_refused():
    with pytest.raises(ValueError, match=r"\(None, C, H, W\)"):
        Inflated(al.LatentSpec({"z": al.Field((4, 8, 8), channels=0)}), None, UNET)
    with pytest.raises(ValueError, match="no sites"):
        Temporal([])


# ---- conditions -------------------------------------------------------------------------------
@torch.no_grad()
def test_what_has_an_entry_for_each_frame_reaches_that_frame():
    spec = ConditionSpec(
        maps={"depth": 1},
        latents={"small": al.Field((None, 2, 4, 4), channels=1)},
        vectors={"camera": al.Field((None, 3))},
    )
    torch.manual_seed(0)
    network = woken(Inflated(SPEC, spec, UNET)).eval()
    x = al.Noise.of(0, 2).like(SPEC.blank(2, torch.tensor([4, 4])))
    mask = torch.ones(2, 4, dtype=torch.bool)
    small = al.LatentSpec({"small": spec.latents["small"]})

    def values(depth, low, camera):
        return Condition(
            {
                "depth": depth,
                "small": al.Latent({"small": low}, {"small": mask}, small),
                "camera": camera,
            }
        )

    drawn = torch.randn(2, 4, 1, 8, 8), torch.randn(2, 4, 2, 4, 4), torch.randn(2, 4, 3)
    found = network(x, LEVELS[:2], values(*drawn))["z"]
    for place in range(3):
        other = [value.clone() for value in drawn]
        other[place][0, 2] += 1.0
        moved = (network(x, LEVELS[:2], values(*other))["z"] - found).abs().amax((2, 3, 4))
        assert bool(moved[0, 2] > 0) and moved.count_nonzero() == 1, place
    with pytest.raises(ValueError, match="3 entries for 4 frames"):
        network(x, LEVELS[:2], values(drawn[0][:, :3], *drawn[1:]))


@torch.no_grad()
def test_guests_nest_on_frames(made, clips):
    """What a guest of the clips' network leaves comes after the layers over time."""

    class Brighter(al.Guest):
        def after(self, site, h, embedding, mask):
            return h + 1.0 if site.name == made.sites[0].name else h

    hosted = al.Hosting(made, Brighter())
    assert hosted.apart and hosted.sites == made.sites
    assert not torch.equal(hosted(clips, LEVELS)["z"], made(clips, LEVELS)["z"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_contract(kind):
    al.testing.check_backbone(partial(Inflated, image=KINDS[kind], gate=0.3))
