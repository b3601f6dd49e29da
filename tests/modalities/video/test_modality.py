"""Batches of clips, their lengths, and frames that are given."""

from functools import partial

import pytest
import torch
from PIL import Image

import anylatent as al
from anylatent.core.support.files import UserError
from anylatent.modalities.video.autoencoder import FramesAutoencoder
from anylatent.modalities.video.clips import Clips
from anylatent.modalities.video.data.moving_mnist import MovingMnist
from anylatent.modalities.video.modality import VideoModality
from tests.modalities.video.small import conv
from tests.modalities.video.test_clips import READERS

SHAPE = (1, 32, 32)


@pytest.fixture(scope="module")
def data():
    return MovingMnist(size=32, clips=6, most=4, frames=6)


@pytest.fixture
def modality(data):
    return VideoModality(SHAPE, 8.0, 6)


SPEC = al.LatentSpec({"z": al.Field((None, 4, 8, 8), channels=1)})


@pytest.mark.parametrize("flip", [False, True])
def test_it_keeps_its_contract(data, flip):
    al.testing.check_modality(VideoModality(SHAPE, 8.0, 6, flip=flip), data, SPEC, READERS)


def test_clips_of_any_length_are_padded_and_masked(modality, data):
    items = [data.train()[0], data.train()[1]]
    items[1] = {**items[1], "video": items[1]["video"][:2], "frames": 2}
    batch = modality.collate(items)
    assert batch["video"].shape == (2, 6, *SHAPE) and batch["mask"].sum(1).tolist() == [6, 2]
    assert not batch["video"][1, 2:].any()
    assert modality.unit(batch)[1].tolist() == [6 * 1024, 2 * 1024]


def test_flip_mirrors_whole_clips(data):
    modality = VideoModality(SHAPE, 8.0, 6, flip=True)
    batch = modality.collate([data.train()[i % 6] for i in range(12)])
    video = modality.augment(batch, al.Noise.of(1, 12))["video"]
    assert torch.equal(modality.augment(batch, al.Noise.of(1, 12))["first"], video)
    same = (video == batch["video"]).flatten(1).all(1)
    mirrored = (video == batch["video"].flip(-1)).flatten(1).all(1)
    assert bool((same | mirrored).all()) and 0 < int(mirrored.sum()) < 12


def blank(modality, n=2, **cond):
    return modality.sizes.blank(SPEC, al.Noise.of(0, n), cond)


def test_samples_have_as_many_frames_as_are_asked_for(modality):
    assert blank(modality).lengths("z").tolist() == [6, 6]
    assert blank(modality, frames=[3, None]).lengths("z").tolist() == [3, 6]


@pytest.mark.parametrize("frames", [0, 10**6, -1, 2.5, "many", True, float("nan")])
def test_frames_that_can_not_be_had(modality, frames):
    with pytest.raises(UserError, match=r"cond\.frames=.*1 to 1024"):
        blank(modality, frames=frames)


# ---- what is given ----------------------------------------------------------------------------
def test_frames_of_a_clip_are_given_in_their_places(modality):
    clip = torch.rand(5, *SHAPE)
    start = blank(modality, frames=[6, 8])
    known = modality.given.known(start, {"clip": [clip, clip], "keep": [[0, 3], None]})
    assert known["given"].tolist() == [
        [True, False, False, True] + [False] * 4,
        [True] * 5 + 3 * [False],
    ]
    assert torch.equal(known["video"][0, 3], clip[3]) and torch.equal(known["video"][1, :5], clip)
    assert not known["video"][0, 1].any()
    made = Clips(torch.rand(2, 8, *SHAPE), torch.tensor([6, 8]))
    whole = modality.given.complete(made, known)
    assert torch.equal(whole.frames[0, 3], clip[3]) and torch.equal(whole.given, known["given"])
    assert torch.equal(whole.frames[0, 1], made.frames[0, 1])


def test_a_picture_is_the_first_frame(modality, tmp_path):
    Image.new("RGB", (40, 30), (255, 255, 255)).save(tmp_path / "white.png")
    known = modality.given.known(blank(modality), {"first": [str(tmp_path / "white.png"), None]})
    assert known["given"].tolist() == [[True] + [False] * 5, [False] * 6]
    assert torch.allclose(known["video"][0, 0], torch.ones(SHAPE))


@pytest.mark.parametrize(
    ("cond", "message"),
    [
        ({"keep": [[0]] * 2}, "which is not given"),
        ({"clip": [torch.zeros(3, *SHAPE)] * 2, "keep": [[3]] * 2}, "from 0 to 2"),
        ({"clip": [torch.zeros(3, *SHAPE)] * 2, "keep": [[-1]] * 2}, "from 0 to 2"),
        ({"clip": [torch.zeros(3, *SHAPE)] * 2, "keep": [["a"]] * 2}, "from 0 to 2"),
        ({"clip": [torch.zeros(9, *SHAPE)] * 2, "keep": [list(range(9))] * 2}, "from 0 to 5"),
        ({"clip": [torch.zeros(6, *SHAPE)] * 2}, "6 frames are given, and samples have 6"),
        ({"clip": [torch.zeros(3, 1, 16, 16)] * 2}, r"\(1, 32, 32\) is wanted"),
        ({"first": [torch.zeros(1, 16, 16)] * 2}, r"\(1, 32, 32\) is wanted"),
        ({"first": ["no.png"] * 2}, "there is no such file"),
        (
            {"clip": [torch.zeros(3, *SHAPE)] * 2, "first": [torch.zeros(SHAPE)] * 2},
            "both say the first frame",
        ),
    ],
)
def test_what_can_not_be_given(modality, cond, message):
    with pytest.raises(UserError, match=message):
        modality.given.known(blank(modality), cond)


def test_more_frames_than_there_are_places(modality):
    clip = torch.zeros(9, *SHAPE)
    with pytest.raises(UserError, match="9 frames are given, and samples have 6"):
        modality.given.known(blank(modality), {"clip": [clip, clip]})


# ---- frames by an autoencoder of pictures ------------------------------------------------------
def batch(*lengths):
    video = torch.rand(len(lengths), max(lengths), *SHAPE) * 2 - 1
    frames = torch.tensor(lengths)
    mask = torch.arange(max(lengths)) < frames[:, None]
    return {"video": video * mask[..., None, None, None], "mask": mask, "frames": frames}


@pytest.fixture
def frames():
    torch.manual_seed(0)
    return FramesAutoencoder(SHAPE, conv).eval()


def test_each_frame_is_what_the_autoencoder_of_pictures_makes_of_it(frames):
    data = batch(4, 2)
    found = frames.encode(data)
    alone = frames.image.encode({"image": data["video"].flatten(0, 1)})
    assert torch.equal(found.mean["z"][0], alone.mean["z"][:4])
    assert torch.equal(found.mean["z"][1, :2], alone.mean["z"][4:6])
    assert not found.mean["z"][1, 2:].any() and found.log_std is not None
    made = frames.decode(found.mean)
    assert made.lengths.tolist() == [4, 2] and made.frames.shape == data["video"].shape


@torch.no_grad()
def test_few_at_a_time_is_the_same(frames):
    data = batch(5, 5)
    whole = frames.encode(data).mean["z"]
    frames.at_once = 3
    parts = frames.encode(data).mean["z"]
    assert torch.allclose(whole, parts, atol=1e-5)


def test_the_loss_of_a_clip_is_the_mean_over_its_frames(frames):
    data = batch(3, 1)
    terms, _ = frames.loss(data, al.Noise.of(0, 2), 0)
    alone, _ = frames.image.loss(
        {"image": data["video"].flatten(0, 1)}, al.Noise.of(0, 2).entries(3), 0
    )
    for name, term in terms.items():
        each = alone[name]
        assert torch.allclose(term, torch.stack([each[:3].mean(), each[3]])), name


def test_an_adversary_of_frames_learns_once():
    part = partial(al.get("adversary", "patch"), (1, 32, 32))
    made = FramesAutoencoder(SHAPE, lambda **told: conv(**told, adversary=part, adversary_start=0))
    made.equip()
    assert made.adversary is made.image.adversary is not None
    assert len(list(made.parameters())) == len(set(made.parameters()))
    assert made.for_loss == ["image.perceptual", "image.adversary", "critic"]
    al.testing.check_autoencoder(made, batch(2, 2))
