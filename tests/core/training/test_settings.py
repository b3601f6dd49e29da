"""Settings of training without meaning, refused where they are read; their neighbours are not."""

import pytest

from anylatent.core.training.optimizers import AdamW, MuonAdamW
from anylatent.core.training.settings import CheckpointConfig, PicturesConfig, StageSettings

WRONG = [
    (PicturesConfig, {"every": -1}, "pictures.every=-1 and"),
    (PicturesConfig, {"samples": 0}, "pictures.samples=0: the least"),
    (CheckpointConfig, {"seconds": -1}, "checkpoint.seconds=-1"),
    (StageSettings, {"workers": -1}, "workers=-1: 0 is the least"),
    (StageSettings, {"clip": -0.5}, "clip=-0.5: 0 is the least"),
    (StageSettings, {"average": 1.0}, "average=1.0: from 0"),
    (AdamW, {"lr": -1.0}, "settings of optimizer: Invalid learning rate: -1"),
    (AdamW, {"betas": (2.0, 0.9)}, "settings of optimizer: Invalid beta"),
    (AdamW, {"weight_decay": -1.0}, "settings of optimizer: Invalid weight_decay"),
    (MuonAdamW, {"matrix_lr": -1.0}, "matrix_lr >= 0"),
]


@pytest.mark.parametrize(("kind", "given", "message"), WRONG)
def test_what_has_no_meaning(kind, given, message):
    with pytest.raises(ValueError, match=message):
        kind(**given)


def test_the_least_that_has():
    PicturesConfig(every=0, samples=1)
    CheckpointConfig(seconds=0)
    StageSettings(workers=0, clip=0, average=0.0, warmup=0, steps=1)
    AdamW(lr=0.0, betas=(0.0, 0.0), weight_decay=0.0)
    MuonAdamW(matrix_lr=0.0)
