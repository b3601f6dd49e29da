"""Ending a stage by a signal, in all of its processes after the same step."""

import signal
from types import SimpleNamespace

import pytest
import torch

from anylatent.core.training.callbacks import Stop


class Strategy:
    """That of two processes, of which the other one is not asked to stop."""

    def __init__(self):
        self.asked = 0

    def reduce_boolean_decision(self, mine, all):
        self.asked += 1
        return mine and not all


def after(stop, trainer, device, number):
    stop.after_step(trainer, SimpleNamespace(device=torch.device(device), number=number))
    return trainer.should_stop


@pytest.mark.parametrize(
    ("world", "device", "steps"),
    [(1, "cpu", [1]), (2, "cpu", [1]), (1, "cuda", [1]), (2, "cuda", [1, 2, 3, 4])],
)
def test_processes_on_several_gpus_ask_now_and_then(world, device, steps):
    trainer = SimpleNamespace(world_size=world, strategy=Strategy(), should_stop=False)
    stop = Stop(4)
    stop.on_train_start(trainer, None)
    try:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        stop.on_train_end(trainer, None)
    *before, last = [after(stop, trainer, device, number) for number in steps]
    assert last and not any(before) and trainer.strategy.asked == 1
