"""Clips in levels, and the network that makes one level told of those before it."""

from functools import partial

import decord
import pytest
import torch

import anylatent as al
from anylatent.core.generators import Cascade, Sampler
from anylatent.core.generators.cascade import NOISE
from anylatent.core.latents import Condition, ConditionSpec
from anylatent.core.support.files import UserError
from anylatent.modalities.video.autoencoder import FramesAutoencoder
from anylatent.modalities.video.backbone import Inflated
from anylatent.modalities.video.lattice import Coarser, apart, interleaved
from anylatent.modalities.video.pyramid import Pyramid
from tests.modalities.video.small import UNET, conv
from tests.modalities.video.test_cli import NET, STEPS

SHAPE = (1, 32, 32)
KEYS = al.Field((3, 2, 4, 4), channels=1)


def pyramid(**settings):
    torch.manual_seed(0)
    made = Pyramid(SHAPE, partial(FramesAutoencoder, image=conv), keys=3, **settings)
    return made.eval()


def batch(frames, count=2):
    torch.manual_seed(1)
    video, mask = torch.rand(count, frames, *SHAPE) * 2 - 1, torch.ones(count, frames).bool()
    return {"video": video, "mask": mask, "frames": mask.sum(1)}


# ---- levels -----------------------------------------------------------------------------------
@pytest.mark.parametrize("levels", [1, 2])
def test_levels_are_the_frames_of_their_places(levels):
    count = 2 * 4**levels + 1
    clip = torch.arange(count).float()[None, :, None].expand(2, -1, 3)
    keys, *between = apart(clip, levels)
    assert keys[0, :, 0].tolist() == list(range(0, count, 4**levels))
    inside = [n for n in range(count) if n % 4]
    assert between[-1][1, :, 2].tolist() == inside
    if levels == 2:
        assert between[0][0, :, 0].tolist() == [n for n in range(0, count, 4) if n % 16]
    assert torch.equal(interleaved([keys, *between]), clip)


@torch.no_grad()
def test_its_fields_are_the_latents_of_those_frames():
    made, data = pyramid(levels=1), batch(9)
    z = made.encode(data).mean
    small = torch.nn.functional.avg_pool2d(data["video"].flatten(0, 1), 2)
    wanted = made.frames.image.sized((1, 16, 16)).encode({"image": small}).mean["z"]
    wanted = torch.unflatten(wanted, 0, (2, 9))
    assert torch.allclose(z["key_frames"], wanted[:, ::4], atol=1e-5)
    assert torch.allclose(z["between_1"][:, :3], wanted[:, 1:4], atol=1e-5)
    full = made.frames.encode(data).mean["z"]
    assert torch.equal(z["full"], full) and z["full"].shape[-1] == 2 * z["key_frames"].shape[-1]
    assert torch.equal(made.decode(z).frames, made.frames.decode(made._clip(z)).frames)
    assert made.decode(z).frames.shape == data["video"].shape


@torch.no_grad()
def test_without_a_larger_level_the_last_one_is_the_clip():
    made, data = pyramid(levels=2, larger=False), batch(33)
    z = made.encode(data).mean
    assert list(z.parts) == ["key_frames", "between_1", "between_2"]
    found = made.frames.decode(made.frames.encode(data).mean)
    assert torch.allclose(made.decode(z).frames, found.frames, atol=1e-5)


def test_both_sizes_are_learned_by_one_autoencoder():
    made = pyramid(levels=1)
    terms, _ = made.loss(batch(9), al.Noise.of(0, 2), 0)
    large, _ = made.frames.loss(batch(9), al.Noise.of(0, 2), 0)
    assert set(terms) == set(large) and all(term.shape == (2,) for term in terms.values())
    assert not torch.allclose(terms["l1"], large["l1"])
    assert len(list(made.parameters())) == len(list(made.frames.parameters()))
    assert not any("small" in name for name in made.state_dict())


@pytest.mark.parametrize(
    ("settings", "frames", "message"),
    [
        ({"levels": 2}, 9, r"9 frames.*33.*data\.frames=33"),
        ({"levels": 0, "larger": False}, 9, "at least two key frames"),
    ],
)
def test_clips_that_make_no_levels(settings, frames, message):
    with pytest.raises(UserError, match=message):
        pyramid(**settings).encode(batch(frames))


# ---- the network of one level -----------------------------------------------------------------
def network(count, told, gate=0.5, side=4):
    torch.manual_seed(0)
    spec = al.LatentSpec({"z": al.Field((count, 2, side, side), channels=1)})
    made = Inflated(spec, ConditionSpec(latents=told), UNET, gate=gate)
    with torch.no_grad():
        for name, p in made.named_parameters():
            p.add_(0.0 if name.endswith("gate") else 0.05 * torch.randn(p.shape))
    return made.eval()


def told(fields, seed=3):
    latents = {
        name: al.Noise.of(seed + i, 2).like(al.LatentSpec({name: field}).blank(2))
        for i, (name, field) in enumerate(fields.items())
    }
    return Condition().fixed(**latents)


@torch.no_grad()
def test_frames_between_see_their_own_ends_clean_and_no_other_gap():
    fields = {"key_frames": KEYS}
    made, cond = network(6, fields), told(fields)
    x = al.Noise.of(1, 2).like(made.spec.blank(2))
    level, seen = torch.tensor([0.3, -1.0]), []
    inner = made.image.forward
    made.image.forward = lambda z, c, *a, **k: seen.append((z, c, a[0])) or inner(z, c, *a, **k)
    found = made(x, level, cond)["z"]
    ((z, c, seen_cond),) = seen
    windows = z["z"].unflatten(0, (2, 2, 5))  # clips, gaps, frames
    keys = cond.values["key_frames"]["key_frames"]
    assert torch.equal(windows[:, :, 0], keys[:, :-1]) and torch.equal(
        windows[:, :, 4], keys[:, 1:]
    )
    assert torch.equal(windows[:, :, 1:4].flatten(1, 2), x["z"])
    levels = c.unflatten(0, (2, 2, 5))
    assert bool((levels[:, :, [0, 4]] == -5).all())
    assert torch.allclose(levels[:, :, 1:4], level[:, None, None].expand(2, 2, 3))
    assert bool((seen_cond.values["spacing"] == 1.0).all())  # two gaps
    other = x.replace(z=torch.where(torch.arange(6)[:, None, None, None] == 4, 3.0, x["z"]))
    moved = (made(other, level, cond)["z"] != found).flatten(2).any(2)
    assert moved[0].tolist() == [False] * 3 + [True] * 3
    far = keys.clone()
    far[:, 2] = 5.0
    there = {"key_frames": cond.values["key_frames"].replace(key_frames=far)}
    moved = (made(x, level, Condition().fixed(**there))["z"] != found).flatten(2).any(2)
    assert moved[1].tolist() == [False] * 3 + [True] * 3


@torch.no_grad()
def test_larger_frames_are_told_their_own_smaller_ones():
    fields = {"key_frames": KEYS, "between_1": al.Field((6, 2, 4, 4), channels=1)}
    made, cond = network(9, fields, gate=0.0, side=8), told(fields)
    x = al.Noise.of(1, 2).like(made.spec.blank(2))
    found = made(x, torch.zeros(2), cond)["z"]
    inside = cond.values["between_1"]["between_1"].clone()
    inside[:, 4] = 5.0  # the second of the second gap: frame 6
    other = {**cond.values, "between_1": cond.values["between_1"].replace(between_1=inside)}
    moved = (made(x, torch.zeros(2), Condition().fixed(**other))["z"] != found).flatten(2).any(2)
    assert moved[0].nonzero()[:, 0].tolist() == [6]


@torch.no_grad()
def test_one_set_of_weights_makes_both_levels():
    first = {"key_frames": KEYS}
    made = network(6, first)
    fields = {**first, "between_1": al.Field((6, 2, 4, 4), channels=1)}
    spec = al.LatentSpec({"between_2": al.Field((24, 2, 4, 4), channels=1)})
    lent = made.lent(spec, ConditionSpec(latents=fields))
    assert not list(lent.parameters())
    x, cond = al.Noise.of(1, 2).like(spec.blank(2)), told(fields)
    found = lent(x, torch.zeros(2), cond)["between_2"]
    whole = interleaved([v[n] for n, v in cond.values.items()])  # nine frames, eight gaps
    own = {"key_frames": al.LatentSpec({"key_frames": KEYS}).wrap({"key_frames": whole[:, :3]})}
    alone = made.spec.wrap({"z": x["between_2"][:, :6]})
    again = made(alone, torch.zeros(2), Condition().fixed(**own))["z"]
    assert found.shape == (2, 24, 2, 4, 4)
    assert not torch.allclose(found[:, :6], again)  # it is told that there are eight gaps, not two
    with torch.no_grad():
        for name, p in made.named_parameters():
            if "spacing" in name:
                p.zero_()
    assert torch.allclose(
        lent(x, torch.zeros(2), cond)["between_2"][:, :6],
        made(alone, torch.zeros(2), Condition().fixed(**own))["z"],
        atol=1e-5,
    )
    with pytest.raises(ValueError, match="those of the other"):
        made.lent(
            al.LatentSpec({"a": al.Field((9, 2, 4, 4), channels=1)}), ConditionSpec(latents=fields)
        )


@pytest.mark.parametrize(
    ("count", "sizes"), [(7, [3]), (9, [3]), (None, [3]), (4, [1]), (9, [3, 5])]
)
def test_levels_that_do_not_fit_are_named_with_their_numbers(count, sizes):
    fields = {f"f{i}": al.Field((size, 2, 4, 4), channels=1) for i, size in enumerate(sizes)}
    if (count, sizes) == (9, [3]):  # nine in two gaps
        with pytest.raises(ValueError, match=r"9 frames.*\(3, 2, 4, 4\)"):
            Coarser.of(count, fields)
        return
    with pytest.raises(ValueError, match="gaps"):
        Coarser.of(count, fields)


# ---- noise on what a stage is told ------------------------------------------------------------
class Told(al.Diffusion):
    """Notes what it is told."""

    times = None

    def __init__(self, spec):
        torch.nn.Module.__init__(self)
        self.spec, self.seen = spec, []

    def loss(self, x0, cond, noise):
        self.seen.append(cond)
        return x0.dim * 0

    def sample(self, blank, cond, sampler, noise, callback=None):
        self.seen.append(cond)
        return noise.like(blank)


def test_a_stage_is_told_noisy_fields_and_how_noisy_they_are():
    spec = al.LatentSpec({"a": al.Field((400,)), "b": al.Field((3,))})
    stages = {name: Told(spec.take([name])) for name in spec.fields}
    cascade = Cascade(stages, spec=spec, noises={"b": (0.5, 0.1)})
    x0 = spec.blank(300)
    cascade.loss(x0, None, al.Noise.of(0, 300))
    cond = stages["b"].seen.pop()
    level, drawn = cond.values[NOISE], cond.values["a"]["a"]
    assert 0 <= float(level.min()) < 0.02 and 0.48 < float(level.max()) < 0.5
    assert torch.allclose(drawn.std(1), level, rtol=0.2, atol=1e-3)
    assert {NOISE, "a"} <= cond.always
    how = Sampler(al.get("solver", "ddim")(), al.get("grid", "uniform")(), 2)
    made = cascade.sample(x0, None, how, al.Noise.of(1, 300))
    cond = stages["b"].seen.pop()
    assert bool((cond.values[NOISE] == 0.1).all())
    assert float((cond.values["a"]["a"] - made["a"]).std()) == pytest.approx(0.1, rel=0.02)
    alone = cascade.sample(spec.blank(1), None, how, al.Noise([(1, 7)]))
    assert torch.equal(alone["a"][0], made["a"][7])
    assert torch.equal(stages["b"].seen.pop().values["a"]["a"][0], cond.values["a"]["a"][7])


# ---- the command line -------------------------------------------------------------------------
LEVELS = [
    "modality=video", "data=moving_mnist", "data.size=32", "data.clips=8", "data.most=4",
    "data.frames=33", *STEPS, *NET, "autoencoder=pyramid", "autoencoder.keys=3",
    "autoencoder.levels=2", "autoencoder.frames.image.channels=16",
    "autoencoder.frames.image.blocks=1", "autoencoder.frames.image.heads=2", "generator=cascade",
    "generator.stages.between_2=between_1", "generator.stages.full.noise=0.5",
    "training.diffusion.batch=2", "training.diffusion.steps=3", "pictures.every=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(trained_once):
    return trained_once("video_levels", LEVELS)


def test_a_cascade_makes_clips_of_all_frames_at_twice_the_size(run, cli, tmp_path):
    code, _, err = cli("sample", f"run={run}", "n=2", "steps=2", f"out={tmp_path}")
    assert code == 0, err
    film = decord.VideoReader(str(tmp_path / "0_00000.mp4"))
    assert len(film) == 33 and film.get_avg_fps() == 8 and film[0].shape == (32, 32, 3)
    made = al.load(run)
    assert made.system.autoencoder.small.spec.fields["z"].shape[-1] == 4
    names = [name for name, _ in made.system.generator.named_parameters()]
    assert not any("between_2" in name for name in names)


def test_what_a_cascade_can_not_be_asked(run, fails, tmp_path):
    told = ["sample", f"run={run}", "n=1", "steps=2"]
    assert "as many frames as it was trained with" in fails(*told, "cond.frames=20")
    (tmp_path / "a.png").write_bytes(b"")
    assert "a latent for each frame" in fails(*told, f"cond.first={tmp_path / 'a.png'}")
    assert "around its generator there can be" in fails(*told, "generator=cascade")


def test_levels_that_a_clip_has_not_are_told_before_anything_is_trained(fails, tmp_path):
    short = [setting for setting in LEVELS if not setting.startswith("data.frames")]
    message = fails("train", *short, "data.frames=16", f"run={tmp_path / 'run'}")
    assert "33" in message and "data.frames=33" in message
    assert not (tmp_path / "run" / "logs").exists()
