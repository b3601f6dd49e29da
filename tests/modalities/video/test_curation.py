"""Clips that are chosen by their motion: what is still goes, and what is cut is parted."""

import shutil
import warnings

import numpy as np
import pytest
import torch

from anylatent.core.support.files import UserError
from anylatent.modalities.video.data.curation import Curation
from anylatent.modalities.video.data.video_folder import VideoFolder
from tests.modalities.video.filming import lossless, moving

pytest.importorskip("av", reason="av is not installed")
pytest.importorskip("cv2", reason="opencv is not installed")
pytestmark = pytest.mark.usefixtures("own_cache", "decoder")


def joined():
    """Five frames of motion, six of one picture that is nothing like them, seven of motion."""
    other = 255 - moving(1, start=33)[:, ::-1, ::-1]
    return np.concatenate((moving(5), other.repeat(6, 0), moving(7, start=60)))


@pytest.fixture
def folder(tmp_path):
    """Steady motion, none at all, and shots that are cut together."""
    films = {"steady": moving(12), "still": moving(1).repeat(12, 0), "cut": joined()}
    for name, frames in films.items():
        lossless(tmp_path / f"{name}.avi", frames)
    return tmp_path


@pytest.fixture
def parted(folder):
    """The same films in parts."""
    lossless(folder / "again.avi", joined()[::-1])
    for part, names in (("train", ("steady", "cut")), ("test", ("still", "again"))):
        (folder / part).mkdir()
        for name in names:
            shutil.copy(folder / f"{name}.avi", folder / part)
    for path in folder.glob("*.avi"):
        path.unlink()
    return folder


def made(folder, **settings):
    usual = {"size": 64, "frames": 5, "held_out": 0.0}
    return VideoFolder(str(folder), **{**usual, **settings})


def told(folder, **settings):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        data = made(folder, **settings)
        items = [data.train()[i] for i in range(len(data.train()))]
    return data, items, " ".join(str(w.message) for w in found)


def test_still_clips_go_and_cuts_part(folder):
    whole = {item["name"]: item["motion"] for item in told(folder)[1]}
    assert not whole["still.avi"].any() and 1 < float(whole["steady.avi"].mean()) < 4
    cuts = (whole["cut.avi"][:-1] > 8).nonzero().flatten().tolist()
    assert cuts == [4, 10]
    data, items, message = told(folder, motion=(0.5, 8.0))
    lengths = sorted((item["name"], item["frames"]) for item in items)
    assert lengths == [("cut.avi", 7), ("steady.avi", 12)]
    assert all(float(item["motion"].max()) <= 8.0 for item in items), "no cut within"
    assert "of 3 clips, cut at 2 places into 5, 2 are left out as static" in message
    assert "1 as shorter than 5 frames; 2 are used" in message
    shown = torch.from_numpy(joined()[11:]).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert torch.allclose(items[lengths[0] != (items[0]["name"], 7)]["video"], shown, atol=0.02)
    assert data.facts["motion"][0] > 0.5


def test_shots_of_one_film_are_items_of_their_own(folder):
    _, items, _ = told(folder, motion=(0.5, 8.0), frames=4)
    data = made(folder, motion=(0.5, 8.0), frames=4)
    assert [item["frames"] for item in items if item["name"] == "cut.avi"] == [4, 7]
    assert len(set(data.train().sources.tolist())) == len(items) == 3


def test_other_bounds_are_other_data(folder):
    kinds = [made(folder, motion=m).fingerprint for m in (True, (0.5, 8.0), (0.4, 8.0))]
    assert len(set(kinds)) == 3
    assert made(folder, motion=True).fingerprint == made(folder).fingerprint


def test_windows_that_are_held_out_are_chosen_too(parted):
    data, items, _ = told(parted, motion=(0.5, 8.0))
    held = [data.held_out()[i]["name"] for i in range(len(data.held_out()))]
    assert held == ["test/again.avi"] * 2, "a window of its first shot, and one of its last"
    assert len(items) == 2


def test_bounds_that_leave_nothing_and_none_at_all(folder):
    with pytest.raises(UserError, match=r"none of them train: give wider bounds"):
        made(folder, motion=(30.0, 40.0)).train()
    for wrong in ((1.0,), (2.0, 1.0), (-1.0, 3.0), (1.0, float("inf")), (1.0, float("nan"))):
        with pytest.raises(UserError, match="such as"):
            made(folder, motion=wrong)
    assert Curation.of(True, 4) is None and Curation.of(False, 4) is None


def test_from_the_command_line(parted, fails):
    told = ["modality=video", "data=video_folder", f"data.path={parted}", "data.size=64"]
    told += ["data.motion=[30,40]", "data.frames=4", f"run={parted.parent / 'run'}"]
    message = " ".join(fails("train", *told).split())
    assert "data.motion=[30,40]: of 4 clips" in message and "none of them" in message
