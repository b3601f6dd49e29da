"""A first frame that is a sample of a run of pictures, under the same condition and seed."""

import pytest
import torch
from PIL import Image

from tests.modalities.video.test_cli import FIRST_FRAME, PICTURES, frames_of


def pixels(path):
    return torch.tensor(list(Image.open(path).convert("L").tobytes())).float().view(32, 32)


@pytest.fixture(scope="module")
def clips(trained_once):
    """A run that knows a first frame."""
    return trained_once("video_first", FIRST_FRAME)


@pytest.fixture(scope="module")
def pictures(trained_once):
    return trained_once("video_pictures", PICTURES)


def test_samples_of_a_run_come_first(clips, pictures, tmp_path, cli):
    """Those that it draws itself with these seeds; clips begin with them, and do not depend on the
    batch."""
    told = ["n=3", "seed=5", "steps=3", "lossless=true", f"cond.first.run={pictures}"]
    code, out, err = cli("sample", f"run={clips}", *told, f"out={tmp_path / 'clips'}")
    assert code == 0 and f"3 samples of {pictures} come first" in out, err
    assert cli("sample", f"run={pictures}", "n=3", "seed=5", f"out={tmp_path / 'own'}")[0] == 0
    assert cli("sample", f"run={clips}", *told, "batch=1", f"out={tmp_path / 'each'}")[0] == 0
    for name in ("5_00000", "5_00001", "5_00002"):
        first = pixels(tmp_path / "clips" / f"{name}_first.png")
        assert torch.equal(first, pixels(tmp_path / "own" / f"{name}.png"))
        clip, other = (frames_of(tmp_path / k / f"{name}.mkv") for k in ("clips", "each"))
        assert ((clip[0, 0] + 1) * 127.5 - first).abs().max() < 1
        assert (clip - other).abs().max() < 0.02
        assert not torch.equal(clip[0], clip[1])


def test_what_can_not_come_first_is_said(clips, pictures, digits, trained_once, tmp_path, fails):
    told = ["sample", f"run={clips}", "n=2", f"out={tmp_path}"]
    both = [f"cond.first.run={pictures}", "cond.first=some.png"]
    assert "beside it" in fails(*told, *both)
    assert "cond.first.run=RUN" in fails(*told, f"cond.clip.run={pictures}")
    assert "one of image is wanted" in fails(*told, f"cond.first.run={clips}")
    message = " ".join(fails(*told, f"cond.first.run={digits}").split())
    assert "(1, 16, 16)" in message and "(1, 32, 32)" in message
    captioned = trained_once("video_captioned", [*FIRST_FRAME, "conditioner.about=caption"])
    asked = [f"cond.first.run={pictures}", "cond.caption=a two and a six", "cond.motion=2"]
    message = fails("sample", f"run={captioned}", "n=1", f"out={tmp_path}", *asked)
    assert "does not know cond.caption" in message
    assert "no samples" in fails("sample", f"run={pictures}", f"cond.first.run={pictures}")
    assert not list(tmp_path.iterdir())
