"""Layers over time in the decoder: what they see, in pieces as at once, and who judges it."""

from functools import partial

import pytest
import torch

import anylatent as al
from anylatent.core.latents import cut
from anylatent.core.support.files import UserError
from anylatent.modalities.video.autoencoder import FramesAutoencoder
from anylatent.modalities.video.critic import PatchDiscriminator3d
from anylatent.modalities.video.folding import pieces
from tests.modalities.video.small import conv
from tests.modalities.video.test_modality import SHAPE, batch

CRITIC = partial(PatchDiscriminator3d, SHAPE, channels=8)


def decoder(gate=0.3, **settings):
    torch.manual_seed(0)
    return FramesAutoencoder(SHAPE, conv, temporal=True, gate=gate, **settings).eval()


@pytest.mark.parametrize(
    ("length", "size", "reach"), [(10, 4, 0), (10, 3, 2), (5, 8, 3), (7, 1, 9)]
)
def test_pieces_keep_each_frame_once_and_see_what_it_depends_on(length, size, reach):
    kept = []
    for seen, own in pieces(length, size, reach):
        frames = list(range(length))[seen]
        for frame in frames[own]:
            near = range(max(0, frame - reach), min(length, frame + reach + 1))
            assert set(near) <= set(frames)
        kept += frames[own]
        assert len(frames) <= size + 2 * reach
    assert kept == list(range(length))


@torch.no_grad()
@pytest.mark.parametrize("kernel", [3, 5])
def test_pieces_are_the_whole(kernel):
    made = decoder(kernel=kernel, at_once=7)
    z = made.encode(batch(50, 31)).mean
    parts, whole = made.decode(z).frames, made._frames(z)
    mask = z.masks["z"]
    assert torch.allclose(parts[mask], whole[mask], atol=1e-5)
    assert made.temporal.reach == len(made.temporal.layers) * (kernel // 2)
    # pieces without what is around them are another clip
    made.temporal.reach = 0
    assert not torch.allclose(made.decode(z).frames[mask], whole[mask], atol=1e-3)


@torch.no_grad()
def test_a_frame_depends_on_no_more_than_the_decoder_s_reach():
    made = decoder(kernel=3)
    z, reach = made.encode(batch(40)).mean, made.temporal.reach
    other = z.replace(z=torch.where(torch.arange(40)[:, None, None, None] == 20, 9.0, z["z"]))
    moved = (made.decode(other).frames - made.decode(z).frames).abs().flatten(2).amax(2)[0] > 1e-6
    assert moved.nonzero()[:, 0].tolist() == list(range(20 - reach, 20 + reach + 1))


@torch.no_grad()
def test_no_more_is_decoded_at_a_time_for_a_longer_clip(monkeypatch):
    made, most = decoder(at_once=8), []
    whole = made.image.decode
    monkeypatch.setattr(
        made.image, "decode", lambda z, guest=None: most.append(z.batch) or whole(z, guest)
    )
    for length in (30, 120):
        most.clear()
        made.decode(made.spec.blank(3, torch.tensor([length] * 3)))
        assert max(most) == 8 + 2 * made.temporal.reach


@torch.no_grad()
def test_it_starts_as_the_decoder_of_frames():
    torch.manual_seed(0)
    plain = FramesAutoencoder(SHAPE, conv).eval()
    z = plain.encode(batch(5, 3)).mean
    assert torch.equal(decoder(gate=0.0).decode(z).frames, plain.decode(z).frames)
    assert plain.by_entry and not decoder().by_entry


@torch.no_grad()
def test_clips_of_a_batch_are_their_own():
    made = decoder()
    z = made.encode(batch(6, 4, 6)).mean
    together = made.decode(z).frames
    for i, length in enumerate((6, 4, 6)):
        alone = made.decode(cut(z, torch.tensor([i]), torch.arange(length)[None])).frames
        assert torch.allclose(together[i, :length], alone[0], atol=1e-5)


def test_its_loss_and_likelihood_are_those_of_what_it_decodes():
    made, data = decoder(), batch(5, 3)
    z = made.encode(data).mean
    with torch.no_grad():
        told = made.log_prob(data, z)
        made.temporal = None
        assert not torch.allclose(told, made.log_prob(data, z))
    made = decoder()
    terms, output = made.loss(data, al.Noise.of(0, 2), 0)
    sum(term.mean() for term in terms.values()).backward()
    assert all(p.grad is not None for p in made.temporal.parameters())
    assert output.shape == (10, *SHAPE)


# ---- the adversary ----------------------------------------------------------------------------
def test_it_tells_frames_in_order_from_frames_in_another():
    torch.manual_seed(0)
    critic, video = CRITIC(), batch(6, 6)["video"]
    logits = critic(video)
    assert logits.shape[:2] == (2, 1) and logits.ndim == 5
    order = torch.tensor([1, 0, 3, 2, 5, 4])
    assert not torch.allclose(critic(video[:, order]).mean(), logits.mean(), atol=1e-5)
    assert torch.allclose(critic(video[:1]), logits[:1], atol=1e-5)
    with pytest.raises(ValueError, match="too small"):
        PatchDiscriminator3d((1, 2, 32))


def test_it_judges_clips_from_its_step_on():
    made = FramesAutoencoder(SHAPE, conv, CRITIC, temporal=True, gate=0.3, adversary_start=5)
    made.equip()
    data = batch(5, 3)
    early, output = made.loss(data, al.Noise.of(0, 2), 4)
    assert "adversarial" not in early and not made.adversary_loss(data, output, 4)
    late, output = made.loss(data, al.Noise.of(0, 2), 5)
    assert late["adversarial"].shape == (2,)
    made.zero_grad()
    late["adversarial"].mean().backward(retain_graph=True)
    assert all(float(p.grad.norm()) > 0 for p in made.temporal.parameters())
    own = made.adversary_loss(data, output, 5)
    assert {name: term.shape for name, term in own.items()} == {"real": (2,), "fake": (2,)}
    made.zero_grad()
    sum(term.mean() for term in own.values()).backward()
    assert all(p.grad is not None for p in made.adversary.parameters())
    assert all(p.grad is None for p in made.temporal.parameters())
    assert not any("critic" in name for name in _kept(made))


def _kept(made):
    spared = tuple(f"{name}." for name in made.for_loss)
    return [name for name in made.state_dict() if not name.startswith(spared)]


def test_it_is_as_strong_as_it_is_told_to_be():
    """Its slope in what is decoded is `adversary_weight` times that of the other losses."""
    made = FramesAutoencoder(
        SHAPE, conv, CRITIC, temporal=True, adversary_start=0, adversary_weight=0.25
    )
    made.equip()
    terms, output = made.loss(batch(4, 4), al.Noise.of(0, 2), 0)
    judged = terms.pop("adversarial").mean()
    rest = sum(term.mean() for name, term in terms.items())
    slopes = [torch.autograd.grad(x, output, retain_graph=True)[0].norm() for x in (judged, rest)]
    assert float(slopes[0] / slopes[1]) == pytest.approx(0.25, rel=1e-3)


def test_padding_is_judged_as_in_the_data():
    torch.manual_seed(0)
    made = FramesAutoencoder(SHAPE, conv, CRITIC, temporal=True, adversary_start=0)
    made.equip()
    data = batch(5, 3)
    _, output = made.loss(data, al.Noise.of(0, 2), 0)
    before = made.adversary_loss(data, output, 0)["fake"][1]
    worse = torch.unflatten(output.detach().clone(), 0, (2, 5))
    worse[1, 3:] = 7.0
    assert torch.equal(before, made.adversary_loss(data, worse.flatten(0, 1), 0)["fake"][1])


def test_what_is_wrong_is_told():
    with pytest.raises(UserError, match="has no sites"):
        FramesAutoencoder(SHAPE, lambda **told: _Blind(**told), temporal=True)
    made = FramesAutoencoder(SHAPE, conv, CRITIC)
    with pytest.raises(UserError, match=r"autoencoder\.temporal=true"):
        made.equip()
    with pytest.raises(UserError, match="adversary_weight"):
        FramesAutoencoder(SHAPE, conv, CRITIC, temporal=True, adversary_weight=-1.0)


class _Blind(al.Autoencoder):
    """Of pictures, without sites."""

    def __init__(self, shape, modality):
        super().__init__()
        self.spec = al.LatentSpec({"z": al.Field(tuple(shape), channels=0)})

    def encode(self, batch): ...

    def decode(self, z): ...

    def loss(self, batch, noise, step): ...
