"""A step's batch in parts: the gradient of the whole, in so much less memory."""

import pytest
import torch
from safetensors.torch import load_file

from anylatent.core.nn import adversary
from anylatent.core.registry import get
from anylatent.core.support.files import UserError
from anylatent.core.training.settings import TrainerConfig
from anylatent.core.training.step_sampler import StepSampler
from anylatent.core.training.windows import WindowSampler
from tests.cli import TINY, rows, steps

ADVERSARY = ["autoencoder.adversary=patch", "autoencoder.adversary_start=0"]
SMALL = [*TINY, *steps(4, 4), "log_every=1", *ADVERSARY]
SMALL += [f"training.{stage}.warmup=0" for stage in ("autoencoder", "diffusion")]
SMALL += [f"training.{stage}.optimizer.lr=0.1" for stage in ("autoencoder", "diffusion")]
SMALL += ["autoencoder.perceptual_weight=0"]


@pytest.mark.parametrize("lengths", [None, torch.arange(1, 24)])
@pytest.mark.parametrize("world", [1, 2])
def test_parts_are_the_batch_in_order(world, lengths):
    for rank in range(world):
        whole = list(StepSampler(23, 8, 6, 2, 5, rank, world, lengths))
        parts = StepSampler(23, 8, 6, 2, 5, rank, world, lengths, parts=2)
        found = list(parts)
        assert len(parts) == len(found) == 2 * len(whole)
        assert [a + b for a, b in zip(found[::2], found[1::2], strict=True)] == whole
        assert [number for number, _ in parts.places()] == [2, 2, 3, 3, 4, 4, 5, 5]


def test_windows_of_parts_are_those_of_the_batch():
    lengths = torch.arange(4, 27)
    whole = list(WindowSampler(StepSampler(23, 8, 6, 0, 5, 0, 1), lengths, 3))
    parts = list(WindowSampler(StepSampler(23, 8, 6, 0, 5, 0, 1, parts=4), lengths, 3))
    assert sum(parts, []) == sum(whole, [])


def test_what_does_not_divide_is_named():
    with pytest.raises(UserError, match="batch of 12 does not divide among 2 processes and 4 par"):
        StepSampler(23, 12, 6, 0, 5, 0, 2, parts=4)
    with pytest.raises(ValueError, match="accumulate_grad_batches=0: a batch comes in 1 part"):
        TrainerConfig(accumulate_grad_batches=0)


def test_the_same_weights_in_parts(cli, tmp_path, monkeypatch):
    """Of autoencoder, adversary and generator, each with its own optimiser: gradients of one
    do not leak into those of another between the parts. By plain descent: Adam's first steps are
    signs, which rounding turns."""

    def descent(self, parameters):
        return [torch.optim.SGD(list(parameters), self.settings["lr"])]

    monkeypatch.setattr(get("optimizer", "adamw"), "__call__", descent)
    # the one thing that is of a batch, not of its items
    monkeypatch.setattr(adversary, "adaptive_weight", lambda *_: torch.tensor(1.0))
    seen, unet = [], get("backbone", "unet")
    forward = unet.forward

    def counted(self, x, *rest):
        seen.append((len(x.parts["z"]), self.training))
        return forward(self, x, *rest)

    monkeypatch.setattr(unet, "forward", counted)
    sizes = {}
    for name, parts in (("one", 1), ("four", 4)):
        seen.clear()
        extra = [f"trainer.accumulate_grad_batches={parts}"]
        code, _, err = cli("train", f"run={tmp_path / name}", *SMALL, *extra)
        assert code == 0, err
        sizes[name] = [count for count, training in seen if training]
    assert sizes == {"one": [8] * 4, "four": [2] * 16}

    one, four = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "four"))
    for name, value in one.items():
        assert torch.allclose(value, four[name], atol=2e-5), name
    for stage in ("autoencoder", "diffusion"):
        a, b = (rows(tmp_path / name / "logs" / f"{stage}.csv") for name in ("one", "four"))
        assert len(a) == len(b) == 4 and a[0].keys() == b[0].keys() >= {"loss", "gradient"}
        for key in a[0].keys() - {"steps_per_second"}:
            got, true = ([float(row[key]) for row in found] for found in (b, a))
            assert got == pytest.approx(true, rel=1e-3), (stage, key)
    assert "adversary_gradient" in rows(tmp_path / "four" / "logs" / "autoencoder.csv")[0]
