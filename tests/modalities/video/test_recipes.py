"""Recipes that begin with another run: what they take of it, and what they refuse."""

import pytest
import yaml
from PIL import Image

from tests.modalities.video.filming import lossless, moving
from tests.modalities.video.test_cli import PICTURES

SMALL = [
    "data=video_folder", "data.size=32", "data.frames=4", "training.diffusion.steps=2",
    "training.diffusion.batch=2", "training.diffusion.warmup=0", "pictures.every=0",
    "trainer.accelerator=cpu",
]  # fmt: skip
ALONE = ["conditioner.about=none"]
pytestmark = pytest.mark.usefixtures("decoder")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Six films that move, two of which are held out, and one that does not."""
    folder = tmp_path_factory.mktemp("films")
    for place in range(6):
        part = "test" if place < 2 else "train"
        lossless(folder / part / f"{place}.avi", moving(6, start=20 * place))
    lossless(folder / "train" / "still.avi", moving(1).repeat(6, 0))
    return [*SMALL, f"data.path={folder}"]


def config(run):
    return yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shifted(trained_once, session):
    """The first stage: pictures, with a schedule that is shifted."""
    folder = session / "colours"
    folder.mkdir(exist_ok=True)
    for place, pixels in enumerate(moving(20)):
        Image.fromarray(pixels).save(folder / f"{place}.png")
    more = ["schedule=shifted", "schedule.shift=2", "data=folder", f"data.path={folder}"]
    told = [item for item in PICTURES if item != "data=mnist"]
    return trained_once("video_shifted_pictures", [*told, *more])


def test_each_stage_keeps_the_schedule_and_the_network_of_the_last(shifted, films, tmp_path, cli):
    """One command each; the third says nothing of model or conditions, which stay."""
    second, third = tmp_path / "second", tmp_path / "third"
    code, out, err = cli(
        "train", "experiment=svd_2", f"from={shifted}", f"run={second}", *films, *ALONE
    )
    assert code == 0 and "1 are left out as static" in " ".join(err.split()), err
    code, _, err = cli("train", "experiment=svd_3", f"from={second}", f"run={third}", *films)
    assert code == 0, err
    first, *later = config(shifted), config(second), config(third)
    for own in later:
        assert own["model"]["schedule"] == first["model"]["schedule"]
        assert own["model"]["schedule"]["shift"] == 2
        image = own["model"]["backbone"]["image"]
        assert image == first["model"]["backbone"], "the network of the pictures"
        assert own["tuning"]["name"] == "all"
    assert later[0]["model"]["backbone"]["gate"] == 0.5
    assert later[0]["model"]["conditioner"]["also"] == ["first", "motion"]
    for part in ("conditioner", "backbone", "autoencoder"):
        assert later[1]["model"][part] == later[0]["model"][part]
    assert config(third)["source"] == str(second)


def test_emu_ends_in_noise_and_predicts_v(shifted, films, tmp_path, cli):
    run = tmp_path / "run"
    code, _, err = cli("train", "experiment=emu", f"from={shifted}", f"run={run}", *films, *ALONE)
    assert code == 0, err
    model = config(run)["model"]
    assert model["schedule"]["name"] == "zero_terminal_snr" and model["prediction"]["name"] == "v"
    code, out, err = cli(
        "sample", f"run={run}", "n=1", "steps=3", f"cond.first.run={shifted}", f"out={tmp_path}"
    )
    assert code == 0 and "come first" in out, err
    assert (tmp_path / "0_00000_first.png").exists() and (tmp_path / "0_00000.mp4").exists()


@pytest.mark.parametrize("name", ["emu", "svd_2", "svd_3"])
def test_they_need_a_model_to_change(name, tmp_path, fails):
    told = [f"experiment={name}", f"run={tmp_path / 'run'}", *SMALL]
    assert "add from=PATH" in fails("train", *told)


def test_pictures_of_another_latent_shape_are_refused(shifted, films, tmp_path, fails):
    """Clips whose network can take nothing of that of the pictures."""
    told = [f"from={shifted}", f"run={tmp_path / 'run'}", *films, *ALONE]
    message = fails("train", "experiment=svd_2", *told, "autoencoder.image.latent_channels=7")
    assert "latents of another shape" in " ".join(message.split())
    assert not (tmp_path / "run").exists()


def test_a_typed_setting_is_over_the_recipe_and_that_over_the_source(shifted, tmp_path, cli):
    told = ["train", "experiment=svd_2", f"from={shifted}", f"run={tmp_path}"]
    told += ["conditioner.noise=0.25", "training.diffusion.steps=7", "--cfg", "job"]
    code, out, err = cli(*told)
    assert code == 0, err
    found = yaml.safe_load(out)
    assert found["conditioner"]["noise"] == 0.25 and found["training"]["diffusion"]["steps"] == 7
    assert found["backbone"]["gate"] == 0.5 and found["schedule"]["shift"] == 2
    assert found["data"]["name"] == "animated_emoji" and found["data"]["motion"] == [0.2, 12.0]
