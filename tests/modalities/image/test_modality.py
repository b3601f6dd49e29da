"""Pictures: batches, pixels as latents, and what is done with samples."""

import numpy as np
import pytest
import torch
from PIL import Image

import anylatent as al
from anylatent.core.registry.part import Part
from anylatent.core.support.files import UserError
from anylatent.modalities.image.modality import ImageModality
from anylatent.modalities.image.pictures import Pictures

LEVELS = torch.arange(256) / 127.5 - 1


def some(count=5, channels=3):
    """Pictures of 8 x 6 px whose numbers are bytes."""
    values = al.Noise.of(0, count).uniform(channels, 8, 6)
    return Pictures(LEVELS[(values * 256).long()])


def test_settings_are_those_alone_that_a_user_may_choose():
    settings = Part("modality", "image", ImageModality).settings()
    assert {name: default for name, (_, default) in settings.items()} == {"flip": False}
    assert ImageModality().asks == [] and ImageModality().given is None
    with pytest.raises(ValueError, match=r"have a shape \(C, H, W\), got \(\)"):
        _ = ImageModality().data_space.spec


@pytest.mark.parametrize("channels", (1, 3))
def test_outputs_keep_the_contract(channels):
    al.testing.check_outputs(some(4, channels))


def test_a_single_picture_is_a_tensor_and_slices_are_pictures():
    pictures = some()
    assert torch.equal(pictures[3], pictures.tensor[3]) and pictures[3].shape == (3, 8, 6)
    assert torch.equal(pictures[-1], pictures.tensor[4])
    assert torch.equal(pictures[1:4:2].tensor, pictures.tensor[1:4:2])
    assert torch.equal(torch.stack(list(pictures)), pictures.tensor)
    joined = Pictures.join([pictures[:2], pictures[2:]])
    assert torch.equal(joined.tensor, pictures.tensor)
    with pytest.raises(ValueError, match=r"\(B, C, H, W\), got \(3, 8, 6\)"):
        Pictures(pictures[0])


@pytest.mark.parametrize("channels", (1, 3))
def test_files_hold_the_bytes(channels, tmp_path):
    pictures = some(3, channels)
    paths = pictures.save(tmp_path / "new", ["a", "b", "c"])
    assert [path.name for path in paths] == ["a.png", "b.png", "c.png"]
    for path, picture in zip(paths, pictures, strict=True):
        read = torch.from_numpy(np.asarray(Image.open(path)).copy())
        read = read[..., None] if channels == 1 else read
        assert torch.equal(LEVELS[read.long()], picture.movedim(0, -1))


def test_a_sheet_has_each_picture_in_its_cell():
    pictures = some(5)
    sheet = torch.from_numpy(np.asarray(pictures.show(2)).copy()).long()
    assert sheet.shape == (3 * 10 + 2, 2 * 8 + 2, 3)
    for place, picture in enumerate(pictures):
        top, left = 2 + place // 2 * 10, 2 + place % 2 * 8
        cell = sheet[top : top + 8, left : left + 6]
        assert torch.equal(LEVELS[cell], picture.movedim(0, -1))
    labelled = pictures.show(2, ["x", "y", "z"])
    assert labelled.height == sheet.shape[0] and labelled.width > sheet.shape[1]


def test_pixels_as_latents():
    space, pictures = ImageModality((3, 8, 6)).data_space, some()
    z = space.lift({"image": pictures.tensor})
    assert z.spec == space.spec == al.LatentSpec({"z": al.Field((3, 8, 6))})
    assert torch.equal(space.lower(z).tensor, pictures.tensor)


def test_half_are_mirrored():
    modality, batch = ImageModality(flip=True), {"image": some(400).tensor}
    found = modality.augment(batch, al.Noise.of(1, 400))["image"]
    same = (found == batch["image"]).flatten(1).all(1)
    turned = (found == batch["image"].flip(-1)).flatten(1).all(1)
    assert bool((same ^ turned).all()) and abs(int(same.sum()) - 200) < 4.5 * 10
    assert ImageModality().augment(batch, al.Noise.of(1, 400)) is batch


def test_no_identity_without_a_data_space():
    class Bare(al.Modality):
        originals = metrics = None

    Bare.__abstractmethods__ = frozenset()
    with pytest.raises(UserError, match="Bare has no data-space latents"):
        al.get("autoencoder", "identity")(Bare())
