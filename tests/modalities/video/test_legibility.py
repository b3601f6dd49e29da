"""Whether digits can be read in clips that go on from given frames."""

import pytest
import torch

import anylatent as al
from anylatent.modalities.image.data import Mnist
from anylatent.modalities.image.metrics import classifier, references
from anylatent.modalities.video.clips import Clips
from anylatent.modalities.video.metrics import Legibility, legibility
from anylatent.modalities.video.metrics.guesses import Task
from anylatent.modalities.video.metrics.legibility import readable
from tests.modalities.video.test_completion_figures import Grey, which


@pytest.fixture(autouse=True)
def judges(monkeypatch, tmp_path_factory):
    """A cache of their own."""
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path_factory.getbasetemp() / "digits"))


def test_digits_that_overlap_are_not_read():
    clips = Clips(torch.zeros(2, 5, 1, 64, 64))
    given = which(5, 0, 1).expand(2, -1)
    apart, over = [[0, 0], [3, 24]], [[0, 0], [3, 23]]
    places = [[apart, apart, over, apart, apart], torch.tensor([over, over, apart, over, over])]
    found = readable(Task(clips, given), places, [[3, 7], torch.tensor([1, 0])])
    told = [(s.clip, s.frame, s.top, s.left, s.digit, s.ahead) for s in found]
    assert told == [
        (0, 3, 0, 0, 3, 2),
        (0, 3, 3, 24, 7, 2),
        (1, 2, 0, 0, 1, 1),
        (1, 2, 3, 24, 0, 1),
    ]
    clips.frames[1, 2, 0, 4, 26] = 1.0
    assert found[3].crop(clips).nonzero().tolist() == [[0, 1, 2]]


def nearest_digit(crops):
    """The label of the nearest real digit."""
    part = Mnist(28).train()
    real = part.pixels.flatten(1).float() / 127.5 - 1
    return torch.tensor(part.columns["digit"])[torch.cdist(crops.flatten(1), real).argmin(1)]


def test_legibility_of_true_digits_and_of_noise(bouncing, monkeypatch):
    data, clips, columns = bouncing
    monkeypatch.setattr(Legibility, "_read", lambda self, crops: nearest_digit(crops))
    given = which(16, *range(5)).expand(24, -1)
    noise = torch.rand(clips.frames.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rows = Legibility(data).completions(
        clips, [Clips(noise), Clips(noise.flip(-1))], given, columns
    )
    assert list(rows) == ["samples", "held-out", "chance"]
    assert rows["held-out"]["legibility"] > 0.75 and rows["samples"]["legibility"] < 0.35
    assert rows["samples"]["digits_read"] == 2 * rows["held-out"]["digits_read"] > 20
    assert rows["chance"] == dict.fromkeys(("legibility", "legibility_1", "legibility_2"), 0.1)
    own = Legibility(data).completions(clips, [clips], given, columns)
    assert own["samples"] == own["held-out"] == rows["held-out"]
    few = Legibility(data, limit=6).completions(clips, [clips] * 3, given, columns)
    assert (few["held-out"]["digits_read"], few["samples"]["digits_read"]) == (2, 6)
    assert Legibility(data).completions(clips, [clips], given, {}) == {}


def test_the_classifier_learns_from_real_digits(bouncing, monkeypatch):
    data, clips, columns = bouncing
    for module in (legibility, references):
        monkeypatch.setattr(module, "features", lambda x: torch.zeros(len(x), 4))
    learned = []
    monkeypatch.setattr(
        references, "learn", lambda *how: learned.append(how) or classifier.learn(*how)
    )
    monkeypatch.setattr(classifier, "STEPS", 1)
    given = which(16, *range(5)).expand(24, -1)
    rows = Legibility(data, digits=50).completions(clips, [clips], given, columns)
    images, _, labels, classes = learned[0]
    assert images.shape == (50, 1, 28, 28) and classes == 10 and len(labels) == 50
    assert 0 <= rows["samples"]["legibility"] <= 1


def test_it_applies_where_digits_have_places(bouncing):
    video, image = (al.get("modality", name)() for name in ("video", "image"))
    assert Legibility.applies(video, bouncing[0])
    assert not Legibility.applies(image, bouncing[0]) and not Legibility.applies(video, Grey())
