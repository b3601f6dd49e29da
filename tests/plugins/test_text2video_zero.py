"""Text2Video-Zero: frames that are one picture, moved, and read the first one; nothing trained."""

import ast
import importlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import anylatent as al
from tests.modalities.video.small import UNET
from tests.modalities.video.test_cli import PICTURES, frames_of

al.names("generator")  # which registers what the plugin builds on
text2video_zero = importlib.import_module("anylatent.plugins.text2video_zero")
Text2VideoZero, ToTheFirst = text2video_zero.Text2VideoZero, text2video_zero.ToTheFirst

SPEC = al.LatentSpec({"z": al.Field((None, 2, 8, 8), channels=1)})
ATTENTION = al.Site("middle.attention", 8, "tokens", True)
CROSS = al.Site("middle.cross", 8, "tokens", True)


class Each(al.Backbone):
    """The velocity of data of deviation `std`, pixel by pixel, from a straight path: exact. Beside
    it every frame shows a bit of what it read at its one site, which is the frame itself."""

    apart = True
    sites = (ATTENTION,)

    def __init__(self, std=0.5, read=0.0):
        super().__init__()
        self.spec, self.conditions = SPEC, al.get("conditioner", "none")().spec
        self.std, self.read = std, read

    def forward(self, x, c_noise, cond=None, guest=None):
        sigma = torch.sigmoid(2 * c_noise.double())[:, None, None, None, None]
        alpha, z = 1 - sigma, x["z"].double()
        z = z * (alpha**2 + sigma**2).sqrt()  # c_in, for data of deviation 1
        frames = z.flatten(0, 1).flatten(2).transpose(1, 2)[:, None]
        told = lambda q, k, v, mask: v  # noqa: E731
        read = frames if guest is None else guest.attend(ATTENTION, *[frames] * 3, None, told)
        seen = read[:, 0].transpose(1, 2).reshape(z.shape)
        factor = (sigma - alpha * self.std**2) / ((alpha * self.std) ** 2 + sigma**2)
        return x.replace(z=(factor * ((1 - self.read) * z + self.read * seen)).to(x.dtype))


def generator(read=0.0, **settings):
    denoiser = al.Preconditioned(
        Each(read=read), al.get("schedule", "flow")(), al.get("prediction", "velocity")()
    )
    objective = al.get("objective", "denoising")(
        times=al.get("times", "uniform")(), weighting=al.get("weighting", "simple")()
    )
    return Text2VideoZero(denoiser, objective, **settings)


def drawn(made, lengths=(6, 6), seed=0, solver="ddim", steps=20, **more):
    sampler = al.Sampler(al.get("solver", solver)(), al.get("grid", "log_snr")(), steps, **more)
    blank = SPEC.blank(len(lengths), torch.tensor(lengths))
    return made.sample(blank, None, sampler, al.Noise.of(seed, len(lengths)))["z"]


# ---- how frames move --------------------------------------------------------------------------
def test_without_noise_of_their_own_frames_are_the_first_one_moved():
    """Pixel by pixel nothing depends on the place, and all steps are one factor: what is moved on
    the way is moved in the end."""
    made = generator(right=1.0, down=-2.0)
    made._noised = lambda x, s, t, noise: x
    found = drawn(made, (4, 4))
    ratio = (found[:, 1, :, :-2, 1:] / found[:, 0, :, 2:, :-1]).flatten()
    assert torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=1e-4)
    again = (found[:, 3, :, :-6, 3:] / found[:, 0, :, 6:, :-3]).flatten()
    assert torch.allclose(again, ratio[:1].expand_as(again), rtol=1e-4)


def test_edges_are_mirrored():
    made = generator(right=1.0)
    x = torch.arange(8.0).expand(1, 4, 1, 8, 8)
    rows = made._moved(x)[0, :, 0, 0].int().tolist()
    assert rows[0] == [0, 1, 2, 3, 4, 5, 6, 7] and rows[1] == [1, 0, 1, 2, 3, 4, 5, 6]
    assert rows[3] == [3, 2, 1, 0, 1, 2, 3, 4]
    assert torch.equal(generator(right=0.4)._moved(x)[0, 1], x[0, 1]), "whole pixels"


@pytest.mark.parametrize("solver", ["heun", "dpmpp_2m_sde"])
def test_each_frame_has_the_law_of_pictures(solver):
    """Data of deviation .5 in every pixel of every frame, since moving and the forward process keep
    the law of what is noisy."""
    found = drawn(generator(right=1.0), (4,) * 400, steps=60, solver=solver)
    for frame in range(4):
        assert float(found[:, frame].std()) == pytest.approx(0.5, abs=0.01), frame
        assert abs(float(found[:, frame].mean())) < 0.01


def test_how_much_frames_have_in_common_is_the_forward_process():
    """corr = α_t σ'... : of x at `apart`, the part that comes from x at `warped`."""
    made = generator(right=0.0, apart=-3.0, warped=-1.0)
    found = drawn(made, (3,) * 400, steps=200).double()
    schedule = made.schedule
    t, s = (float(schedule.time(level)) for level in (-3.0, -1.0))
    alphas, sigmas = ([float(f(u)) for u in (t, s)] for f in (schedule.alpha, schedule.sigma))
    spread = [a**2 * 0.25 + b**2 for a, b in zip(alphas, sigmas, strict=True)]
    wanted = alphas[0] / alphas[1] * (spread[1] / spread[0]) ** 0.5
    pairs = found[:, 0].flatten(), found[:, 1].flatten(), found[:, 2].flatten()
    for one, other in ((0, 1), (1, 2)):
        own = float(torch.corrcoef(torch.stack((pairs[one], pairs[other])))[0, 1])
        expected = wanted if one == 0 else wanted**2
        assert own == pytest.approx(expected, abs=0.02), (one, other, own, expected)


def test_a_clip_is_the_same_alone_and_with_more_frames():
    made = generator(read=0.3, right=0.5)
    both = drawn(made, (6, 4))
    assert torch.allclose(drawn(made, (6,))[0], both[0], atol=1e-5)
    assert not both[1, 4:].any()


def test_the_first_frame_is_the_picture_that_the_model_draws():
    """It goes its own way from noise to data, whatever the others do."""
    made = generator(right=1.0)
    plain = al.Diffusion(made.denoiser, made.objective)
    blank = SPEC.blank(2, torch.tensor([5, 5]))
    sampler = al.Sampler(al.get("solver", "ddim")(), al.get("grid", "log_snr")(), 20)
    alone = plain.sample(blank, None, sampler, al.Noise.of(0, 2))["z"]
    assert torch.allclose(drawn(made, (5, 5))[:, 0], alone[:, 0], atol=1e-5)


# ---- whom frames read -------------------------------------------------------------------------
def test_frames_read_the_first_one_and_their_own_context():
    guest = ToTheFirst().begin(SPEC.blank(2, torch.tensor([3, 3])), torch.zeros(2), None)
    q = k = v = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 4, 8)
    seen = lambda q, k, v, mask: (k, v, mask)  # noqa: E731
    keys, values, mask = guest.attend(ATTENTION, q, k, v, None, seen)
    assert keys[:, 0, 0, 0].tolist() == values[:, 0, 0, 0].tolist() == [0, 0, 0, 3, 3, 3]
    assert mask is None
    assert guest.attend(CROSS, q, k, v, None, seen)[0] is k


@torch.no_grad()
def test_in_a_network_the_others_follow_the_first_and_not_one_another():
    torch.manual_seed(0)
    network = al.get("backbone", "video_unet")(SPEC, None, UNET, layers=False)
    for p in network.parameters():
        p.add_(0.05 * torch.randn_like(p))
    assert not any("temporal" in name for name in network.state_dict())
    hosted = al.Hosting(network.eval(), ToTheFirst())
    x, level = al.Noise.of(0, 2).like(SPEC.blank(2, torch.tensor([4, 4]))), torch.zeros(2)
    found = hosted(x, level)["z"]
    for place, follows in ((0, [True] * 4), (2, [False, False, True, False])):
        other = x["z"].clone()
        other[0, place] += 1.0
        moved = (hosted(x.replace(z=other), level)["z"] - found).abs().amax((2, 3, 4))
        assert (moved[0] > 1e-6).tolist() == follows and not moved[1].any()
    assert torch.allclose(found[:, 0], network(x, level)["z"][:, 0], atol=1e-5)


def test_bad_settings():
    with pytest.raises(ValueError, match="log-SNR above"):
        generator(apart=-4.0, warped=-4.0)
    with pytest.raises(ValueError, match="steps=20"):
        drawn(generator(), steps=1)
    made = generator()
    with pytest.raises(ValueError, match="run of pictures"):
        made.invert(SPEC.blank(1, torch.tensor([2])), None, None, None)


def test_it_is_made_of_public_names_alone():
    tree = ast.parse(Path(text2video_zero.__file__).read_text(encoding="utf-8"))
    imported = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    ours = {name for name in imported if name.startswith("anylatent")}
    assert ours == {"anylatent"}


# ---- the command line -------------------------------------------------------------------------
@pytest.fixture(scope="module")
def pictures(trained_once):
    return trained_once("video_pictures", PICTURES)


def test_a_run_is_finished_at_once_and_draws_clips(pictures, tmp_path, cli, fails):
    run = tmp_path / "zero"
    more = ["experiment=text2video_zero", "data.frames=5", "trainer.accelerator=cpu"]
    code, out, err = cli("train", f"from={pictures}", f"run={run}", *more)
    assert code == 0 and "trained:" in out, err
    assert not load_file(run / "model.safetensors"), "all of it is the run's of pictures"
    assert "steps/s" not in out + err
    told = [f"run={run}", "n=2", "lossless=true", "steps=6"]
    assert cli("sample", *told, f"out={tmp_path / 'two'}")[0] == 0
    assert cli("sample", *told, "batch=1", f"out={tmp_path / 'each'}")[0] == 0
    for name in ("0_00000.mkv", "0_00001.mkv"):
        clip, other = (frames_of(tmp_path / folder / name) for folder in ("two", "each"))
        assert clip.shape == (5, 1, 32, 32) and (clip - other).abs().max() < 0.02
        assert float(clip.diff(dim=0).abs().mean()) > 0
    assert cli("train", f"run={run}")[0] == 0, "nothing is left to train"
    assert "needs two steps" in fails("sample", f"run={run}", "n=1", "steps=1", f"out={tmp_path}")


def test_what_it_needs_is_said(pictures, tmp_path, fails):
    more = ["experiment=text2video_zero", f"run={tmp_path / 'run'}", "trainer.accelerator=cpu"]
    assert "changes a model: add from=PATH" in fails("train", *more)
    wide = "backbone.image.channels=64"
    assert "learns nothing" in fails("train", f"from={pictures}", *more, wide)
    both = ["experiment=video_cpu", f"from={pictures}", f"run={tmp_path / 'run'}"]
    assert "both say what the model" in fails("train", *both)
    assert "above 0" in fails("train", f"from={pictures}", *more, "data.frames=0")
    alone = ["modality=image", "tuning=none", f"run={tmp_path / 'run'}"]
    assert "from=PATH" in fails("train", *alone)
