"""The classifier of pictures that is learned on them and on their features."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anylatent.modalities.image.metrics import classifier


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stripes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy stripes, lying (class 0) or standing (class 1), of any phase."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    phase = torch.rand(count, 1, 1, 1, generator=generator) * 6.3
    wave = torch.sin(torch.arange(24.0) + phase).expand(-1, 1, 24, -1)
    images = torch.where(labels[:, None, None, None] == 1, wave, wave.transpose(2, 3))
    return images + 0.5 * torch.randn(images.shape, generator=generator), labels


def test_classifier_learns_repeats_itself_and_leaves_the_global_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(classifier, "STEPS", 40)
    images, labels = stripes(200, seed=0)
    blind = torch.zeros(200, 4)  # features that tell nothing
    before = torch.get_rng_state()
    state = classifier.learn(images, blind, labels, 2)
    assert torch.equal(before, torch.get_rng_state())
    again = classifier.learn(images, blind, labels, 2)
    assert all(torch.equal(state[name], again[name]) for name in state)
    unseen, truth = stripes(100, seed=1)
    judge = classifier.restore(state, channels=1)
    assert float((judge(unseen, blind[:100]).argmax(1) == truth).double().mean()) > 0.95


def test_classifier_uses_features_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "STEPS", 5)
    labels = torch.arange(120) % 3
    telling = torch.nn.functional.one_hot(labels, 3) + 0.2 * normal(120, 3)
    judge = classifier.restore(
        classifier.learn(torch.zeros(120, 3, 16, 16), telling.float(), labels, 3), channels=3
    )
    named = judge(torch.zeros(120, 3, 16, 16), telling.float()).argmax(1)
    assert float((named == labels).double().mean()) > 0.95
