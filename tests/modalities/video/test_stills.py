"""Pictures as clips of one frame."""

import pytest
import torch

import anylatent as al
from anylatent.core.support.columns import Window
from anylatent.core.support.files import UserError
from anylatent.modalities.image.data import Mnist
from anylatent.modalities.video.data.moving_mnist import MovingMnist
from anylatent.modalities.video.data.stills import Stills
from anylatent.modalities.video.modality import VideoModality


@pytest.fixture(scope="module")
def pictures():
    return Mnist(16, 0.9)


def test_the_contract(pictures):
    al.testing.check_data(Stills(pictures, frames=5))


def test_each_picture_is_a_clip_in_the_same_part(pictures):
    data = Stills(pictures, frames=5, rate=4.0)
    for own, other in ((data.train(), pictures.train()), (data.held_out(), pictures.held_out())):
        assert len(own) == len(other) and torch.equal(own.sources, other.sources)
        item, picture = own[Window(7, 0, 1)], other[7]
        assert torch.equal(item["video"], picture["image"][None])
        assert item["digit"] == picture["digit"] and "image" not in item
        assert item["frames"] == 1 and item["rate"] == 4.0 and not item["motion"].any()
    assert data.facts["frames"] == 5 and data.facts["shape"] == [1, 16, 16]
    batch = VideoModality((1, 16, 16)).collate([data.train()[0], data.train()[1]])
    assert batch["video"].shape == (2, 1, 1, 16, 16) and batch["mask"].all()
    assert data.fingerprint != Stills(Mnist(16, 0.8)).fingerprint


def test_what_has_no_pictures_is_refused():
    with pytest.raises(UserError, match="whose items have `image`"):
        Stills(MovingMnist(size=32, clips=2, most=2)).train()[0]
    with pytest.raises(UserError, match="above 0"):
        Stills(Mnist(16, 0.9), frames=0)
