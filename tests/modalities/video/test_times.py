"""Times of frames: losses, and frames that are given."""

import pytest
import torch

import anylatent as al
from anylatent.core.guidance import ClassifierFree
from anylatent.core.latents import Condition, Masking
from anylatent.core.registry import build
from anylatent.modalities.video.backbone import Inflated
from tests.modalities.video.small import DIT, UNET

SPEC = al.LatentSpec({"z": al.Field((None, 4, 8, 8), channels=1)})


def denoiser(tells=frozenset(), kind=UNET):
    torch.manual_seed(0)
    schedule, prediction = al.get("schedule", "flow")(), al.get("prediction", "velocity")()
    network = Inflated(SPEC, None, kind, gate=0.5)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.02 * torch.randn(p.shape))
    return al.Preconditioned(network, schedule, prediction, tells=tells).eval()


class Fixed(al.Times):
    """Times that are given, for samples or for their frames."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def quantile(self, u, schedule):
        return u

    def density(self, t, schedule):
        return torch.ones_like(t)

    def sample(self, noise, schedule, entries=None):
        return self.value if entries is None else self.value[:, None].expand(-1, entries)


@pytest.mark.parametrize("frames", [3, 5])
@pytest.mark.parametrize("kind", [UNET, DIT])
def test_equal_times_of_frames_are_one_time(frames, kind):
    """Also where there are as many clips as frames."""
    times = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    x0 = al.Noise.of(4, 3).like(SPEC.blank(3, torch.full((3,), frames)))
    found = []
    for forcing in (False, True):
        objective = al.Denoising(Fixed(times), forcing=forcing).eval()
        made = denoiser(objective.tells, kind)
        with torch.no_grad():
            found.append(objective(made, x0, None, al.Noise.of(1, 3)))
    assert torch.allclose(found[0], found[1], atol=1e-6, rtol=1e-6)


class First(Masking):
    """The first two frames."""

    def __call__(self, valid, noise):
        return torch.arange(valid.shape[1])[None].expand_as(valid) < 2


@torch.no_grad()
def test_given_frames_are_shown_clean_and_earn_no_loss():
    x0 = al.Noise.of(4, 2).like(SPEC.blank(2, torch.tensor([5, 4])))
    objective = al.Denoising(masking=First()).eval()
    made, seen = denoiser(objective.tells), []
    inner = made.backbone.forward

    def watched(x, c_noise, cond=None, guest=None):
        seen.append((x, c_noise))
        return inner(x, c_noise, cond, guest)

    made.backbone.forward = watched
    loss = objective(made, x0, None, al.Noise.of(1, 2))
    (x, c_noise), *_ = seen
    assert torch.allclose(x["z"][:, :2], x0["z"][:, :2], atol=1e-5)
    assert bool((c_noise[:, :2] == -5).all()) and not bool((c_noise[:, 2:] == -5).any())
    # the loss is that of the frames that are found alone
    made.backbone.forward = lambda *a, **k: _worse(inner(*a, **k))
    again = objective(made, x0, None, al.Noise.of(1, 2))
    assert torch.allclose(loss, again)


def _worse(found):
    """Another answer where frames are given."""
    parts = found["z"].clone()
    parts[:, :2] += 3.0
    return found.replace(z=parts)


@pytest.mark.parametrize("rule", ["prefix", "ends", "every", "mixed"])
def test_every_rule_trains_clips(rule):
    made = build("objective", {"name": "denoising", "masking": {"name": rule}})
    x0 = al.Noise.of(4, 3).like(SPEC.blank(3, torch.tensor([5, 1, 4])))
    loss = made(denoiser(made.tells), x0, None, al.Noise.of(1, 3))
    assert loss.shape == (3,) and bool(loss.isfinite().all())
    loss.sum().backward()


# ---- guidance that grows over frames ----------------------------------------------------------
class Named(al.Denoiser):
    """x0 is the condition at every frame."""

    def __init__(self):
        super().__init__()
        self.schedule = al.get("schedule", "vp")()

    def forward(self, x, t, cond=None):
        known = torch.where(cond.keep["c"], cond.values["c"], 0.0)
        return x.map(lambda z: known.view(-1, *[1] * (z.ndim - 1)).expand_as(z))


@pytest.mark.parametrize("first", [0.0, 1.0, 2.5])
def test_a_scale_grows_from_the_first_frame_to_the_last(first):
    x = SPEC.blank(2, torch.tensor([5, 3]))
    guide = ClassifierFree(Named(), scale=3.0, first=first)
    found = guide(x, torch.tensor(0.5), Condition({"c": torch.tensor([1.0, 2.0])}))["z"][
        ..., 0, 0, 0
    ]
    grown = torch.stack(
        [torch.linspace(first, 3.0, 5), torch.tensor([first, (first + 3) / 2] + [3.0] * 3)]
    )
    assert torch.allclose(found, grown * torch.tensor([[1.0], [2.0]]))


def test_scales_of_pictures_can_not_grow():
    x = al.LatentSpec({"z": al.Field((4, 8, 8), channels=0)}).blank(1)
    guide = ClassifierFree(Named(), scale=3.0, first=1.0)
    with pytest.raises(ValueError, match="no time for each entry"):
        guide(x, torch.tensor(0.5), Condition({"c": torch.ones(1)}))
