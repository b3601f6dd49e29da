"""`anylatent invert`, and samples from stored noise, on real digits with tiny networks."""

import json
import shutil
import warnings

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import anylatent as al
from anylatent.core.cli import main
from anylatent.core.runs.stored_noise import StoredNoise
from anylatent.core.support.files import UserError
from tests.cli import QUICK, TINY, launch, steps


@pytest.fixture(scope="module")
def run(digits):
    """A model whose solver, as it was trained, draws noise."""
    return digits


@pytest.fixture(scope="module")
def inverted(run, tmp_path_factory):
    """What a command leaves behind and prints."""
    folder = tmp_path_factory.mktemp("inversion")
    told = launch("invert", f"run={run}", "n=5", "steps=40", f"out={folder}")
    return folder, told


def stored(run, folder):
    spec = al.load(run, device="cpu").system.autoencoder.spec
    return StoredNoise.load(folder / "noise.safetensors", spec)


def pictures(folder):
    return [Image.open(path).tobytes() for path in sorted(folder.glob("0*.png"))]


def sampled(cli, run, folder, out, *extra):
    noise = f"noise={folder / 'noise.safetensors'}"
    code, told, err = cli("sample", f"run={run}", noise, f"out={out}", *extra)
    assert code == 0, err
    return pictures(out), told


def test_data_come_back_and_noise_is_kept(run, inverted):
    folder, told = inverted
    report = json.loads((folder / "inversion.json").read_text())
    latents = report["latents after the round trip, per degree of freedom"][""]
    assert (
        0 < latents["error"] < 0.15 < latents["rms"] and latents["error"] <= latents["error_worst"]
    )
    data = report["data against the originals"]
    assert {"psnr", "ssim"} < set(data["autoencoder"]) == set(data["inverted and restored"])
    assert report["noise"]["inverted"] != report["noise"]["drawn"]
    assert report["evaluations of the denoiser, per sample"][""] == {"up": 39, "back": 40}
    assert "5 samples, dpmpp_2m, grid soft, 40 steps, guidance none" in told
    assert (folder / "inversion.md").read_text().count("| error ") == 1
    assert len(pictures(folder / "originals")) == len(pictures(folder / "restored")) == 5
    assert Image.open(folder / "comparison.png").size[0] > 5 * 16
    kept = stored(run, folder)
    assert kept.noise.batch == len(set(kept.items)) == len(kept.columns["digit"]) == 5
    assert load_file(folder / "noise.safetensors")["noise.z"].dtype == torch.float32


def test_a_sample_of_it_is_what_was_restored(run, inverted, cli, tmp_path):
    """The file's solver, steps, guidance, n and conditions count unless others are given."""
    folder, _ = inverted
    same, told = sampled(cli, run, folder, tmp_path / "same")
    assert same == pictures(folder / "restored") and "5 samples" in told
    few, _ = sampled(cli, run, folder, tmp_path / "few", "n=3", "batch=2")
    assert few == same[:3]
    digits = stored(run, folder).columns["digit"]
    digit = next(d for d in "0123456789" if d not in digits)
    guided = ["guidance=classifier_free", "guidance.scale=4"]
    edited, _ = sampled(cli, run, folder, tmp_path / "edit", f"cond.digit={digit}", *guided)
    assert all(a != b for a, b in zip(edited, same, strict=True))
    other, _ = sampled(cli, run, folder, tmp_path / "steps", "steps=3")
    assert other != same


def test_each_class_from_the_same_noise(run, inverted, cli, tmp_path):
    folder, _ = inverted
    arguments = ["each=digit", "n=2", "steps=3"]
    code, _, err = cli(
        "sample",
        f"run={run}",
        f"noise={folder / 'noise.safetensors'}",
        *arguments,
        f"out={tmp_path / 'each'}",
    )
    assert code == 0, err
    fours = sorted((tmp_path / "each").glob("4_*.png"))
    alone, _ = sampled(cli, run, folder, tmp_path / "four", "cond.digit=4", "n=2", "steps=3")
    assert [Image.open(path).tobytes() for path in fours] == alone


@pytest.mark.parametrize("solver", ("dpmpp_2m", "dopri5"))
def test_noise_does_not_depend_on_the_batch(solver, run, tmp_path):
    arguments = [f"run={run}", "steps=6", f"solver={solver}", "seed=3"]
    launch("invert", *arguments, "n=4", f"out={tmp_path / 'all'}")
    launch("invert", *arguments, "n=3", "batch=2", f"out={tmp_path / 'few'}")
    every, few = stored(run, tmp_path / "all"), stored(run, tmp_path / "few")
    assert few.items == every.items[:3]
    assert float((every.noise["z"][:3] - few.noise["z"]).abs().max()) < 1e-4


def test_conditions_and_guidance_of_the_user_s_own(run, tmp_path):
    kinds = {
        "none": ["cond.digit=null"],
        "list": ["cond.digit=[1,2]", "guidance=classifier_free", "guidance.scale=3"],
    }
    for out, extra in kinds.items():
        launch("invert", f"run={run}", "n=2", "steps=4", f"out={tmp_path / out}", *extra)
    found = {out: stored(run, tmp_path / out) for out in kinds}
    assert found["none"].columns == {"digit": [None] * 2}
    assert found["list"].columns == {"digit": [1, 2]}
    assert found["list"].settings.guidance["scale"] == 3
    assert not torch.equal(found["list"].noise["z"], found["none"].noise["z"])


@pytest.fixture(scope="module")
def colour(inverted, tmp_path_factory):
    """A model of pictures in colour, of which it knows the folders `left` and `right`."""
    folder = tmp_path_factory.mktemp("colour")
    for i, path in enumerate(sorted((inverted[0] / "originals").glob("*.png"))):
        copy(path, folder / "mine" / ("right" if i % 2 else "left") / f"{i}.png")
    plain = [s for s in TINY if not s.startswith("data")]
    data = ["data=folder", f"data.path={folder / 'mine'}", "data.size=16", "data.held_out=0.4"]
    launch("train", f"run={folder / 'run'}", *plain, *data, *steps(1, 8), *QUICK)
    return folder / "run"


def copy(path, to):
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, to)


def inversion(cli, run, out, *arguments):
    code, _, err = cli("invert", f"run={run}", "steps=2", f"out={out}", *arguments)
    assert code == 0, err
    return stored(run, out), err


def test_files_of_the_user_s_own(run, colour, cli, fails, tmp_path):
    """All of them, however few; where the model knows no colour, an error."""
    picture = next((colour.parent / "mine").glob("*/*.png"))
    copy(picture, tmp_path / "mine" / "0.png")
    own = ["data=folder", f"data.path={tmp_path / 'mine'}", "data.size=16"]
    message = fails("invert", f"run={run}", *own)
    assert "data=folder: shape is" in message and "[1, 16, 16]" in message
    assert "settings of such data are path, size, held_out, seed" in message
    for given in (own, [own[1]], [*own, "data.held_out=0"]):
        found, err = inversion(cli, colour, tmp_path / "out", *given)
        assert found.items == [0] and found.columns == {} and "warning" not in err
    copy(picture, tmp_path / "mine" / "1.png")
    assert inversion(cli, colour, tmp_path / "out", *own)[0].items == [0, 1]


def test_the_run_s_own_data_are_those_held_out(run, colour, cli, fails, tmp_path):
    place = colour.parent / "mine" / ".." / "mine"  # another spelling is no other place
    for given in ([], [f"data.path={place}"]):
        assert len(inversion(cli, colour, tmp_path, *given)[0].items) == 2
    message = fails("invert", f"run={run}", "data.held_out=0.2", "data.seed=1")
    assert "leave out data.held_out=0.2 (the run: 0.9), data.seed=1 (the run: 0)" in message
    assert "data.size" not in message


def test_classes_that_the_model_does_not_know_are_none(colour, cli, tmp_path):
    picture = next((colour.parent / "mine").glob("*/*.png"))
    for i, name in enumerate(("Left", "up", "down", "up")):
        copy(picture, tmp_path / "mine" / name / f"{i}.png")
    own = f"data.path={tmp_path / 'mine'}"
    found, err = inversion(cli, colour, tmp_path / "out", own)
    assert found.columns == {"category": ["Left", None, None, None]}
    (line,) = [line for line in err.splitlines() if "warning" in line]
    assert line.startswith("anylatent: warning: ") and "knows no category down, up: 3 of 4" in line
    assert "cond.category=null" in line and "one of left, right" in line
    chosen, err = inversion(cli, colour, tmp_path / "out", own, "cond.category=right")
    assert chosen.columns == {"category": ["right"] * 4} and "warning" not in err
    none, _ = inversion(cli, colour, tmp_path / "out", own, "cond.category=null")
    moved = [not torch.equal(none.noise["z"][i], found.noise["z"][i]) for i in range(4)]
    assert moved == [True, False, False, False]


def test_training_holds_something_out(fails, tmp_path):
    message = fails("train", f"run={tmp_path / 'run'}", *TINY, "data.held_out=0")
    assert "no data are held out" in message and "a fraction between 0 and 1" in message
    assert not (tmp_path / "run").exists()


def test_only_warnings_of_our_own_are_one_line(cli, monkeypatch):
    def warn(*_):
        warnings.warn_explicit("ours", UserWarning, main.__file__, 3)
        warnings.warn_explicit("old", DeprecationWarning, main.__file__, 4)
        warnings.warn_explicit("theirs", UserWarning, warnings.__file__, 5)

    monkeypatch.setattr(main, "_run", warn)
    with warnings.catch_warnings(record=True) as others:
        warnings.simplefilter("always")
        usual = warnings.showwarning
        assert cli("list") == (0, "", "anylatent: warning: ours\n")
        assert warnings.showwarning is usual
    assert [str(other.message) for other in others] == ["old", "theirs"]


def test_what_a_longer_inversion_left_goes(run, cli, tmp_path):
    told = ["invert", f"run={run}", f"out={tmp_path}", "steps=2"]
    assert cli(*told, "n=4")[0] == 0
    (tmp_path / "restored" / "mine.png").touch()
    assert cli(*told, "n=2")[0] == 0
    assert len(pictures(tmp_path / "originals")) == 2
    assert (tmp_path / "restored" / "mine.png").exists()


def test_mistakes_are_messages(run, inverted, fails, tmp_path):
    invert = ["invert", f"run={run}", f"out={tmp_path}"]
    for solver in ("ddpm", "heun solver.churn=10"):
        message = fails(*invert, *f"solver={solver}".split())
        assert f"solver={solver.split()[0]} draws noise" in message and "solver=dpmpp_2m" in message
    assert "steps=1: at least 2" in fails(*invert, "steps=1")
    assert "no condition colour" in fails(*invert, "cond.colour=red")
    assert "2 values for 8 samples" in fails(*invert, "cond.digit=[1,2]")
    assert "unknown digit 'x'" in fails(*invert, "cond.digit=x")
    assert not list(tmp_path.iterdir())
    noise = inverted[0] / "noise.safetensors"
    sample = ["sample", f"run={run}", f"out={tmp_path}"]
    assert "n=9, but" in fails(*sample, f"noise={noise}", "n=9")
    assert "no such file" in fails(*sample, "noise=nothing.safetensors")
    assert "holds no noise" in fails(*sample, f"noise={run / 'model.safetensors'}")


def test_from_python(run, inverted):
    """Noise is any latents, also drawn ones."""
    model, kept = al.load(run, device="cpu"), stored(run, inverted[0])
    how = {"solver": "dpmpp_2m", "steps": 40, "guidance": {"name": "none"}}
    all_ = model.sample(noise=kept.noise, cond=kept.columns, **how)
    alone = model.sample(
        noise=kept.noise.select([3]), cond={"digit": kept.columns["digit"][3]}, **how
    )
    assert float((all_[3] - alone[0]).abs().max()) < 1e-4
    blank = kept.noise.zeros()
    drawn = al.Noise([(7, i) for i in range(5)]).like(blank)
    again = model.sample(5, seed=7, noise=drawn, **how)
    other = model.sample(5, seed=7, **how)
    assert float((again.tensor - other.tensor).abs().max()) < 1e-4
    with pytest.raises(UserError, match="3 samples, but noise for 5"):
        model.sample(3, noise=kept.noise)
