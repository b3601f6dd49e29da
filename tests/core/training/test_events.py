"""TensorBoard's logs: each step once, however often a run was stopped, and no end of training."""

import pytest
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from anylatent.core.training.events import Events


def logged(folder, begun, steps, close=True):
    """A process that goes on from a step and logs some; one that is killed has flushed all."""
    events = Events(folder, "stage", begun)
    for step in steps:
        events.log_metrics({"loss": begun + step / 100}, step)
    events.save()
    if close:
        events.finalize("success")
    else:
        events.experiment.flush()


def shown(folder):
    found = EventAccumulator(str(folder / "stage"))
    found.Reload()
    return [(event.step, round(event.value, 2)) for event in found.Scalars("loss")]


def test_what_a_killed_process_logged_is_not_shown_twice(tmp_path):
    """Its last checkpoint is of step 4, its last line of step 6."""
    logged(tmp_path, 0, range(1, 7), close=False)
    logged(tmp_path, 4, range(5, 9))
    assert shown(tmp_path) == [(step, (4 if step > 4 else 0) + step / 100) for step in range(1, 9)]


def test_a_stage_that_begins_anew_has_no_older_lines(tmp_path):
    logged(tmp_path, 0, range(1, 7), close=False)
    logged(tmp_path, 0, [1, 2])
    assert [step for step, _ in shown(tmp_path)] == [1, 2]


def test_an_uninterrupted_one_has_all_its_lines(tmp_path):
    logged(tmp_path, 0, range(1, 9))
    assert [step for step, _ in shown(tmp_path)] == list(range(1, 9))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disk_is_one_warning(wrapped, tmp_path, monkeypatch, capsys):
    def full(self, metrics, step=None):
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            if wrapped:
                raise ValueError("you tried to log") from error
            raise

    events = Events(tmp_path, "stage", 0)
    monkeypatch.setattr(TensorBoardLogger, "log_metrics", full)
    for step in range(3):
        events.log_metrics({"loss": 1.0}, step)
    told = capsys.readouterr().out
    assert told.count("No space left on device; training goes on") == 1


def test_a_mistake_of_ours_is_no_full_disk(tmp_path, monkeypatch):
    def wrong(self, metrics, step=None):
        raise ValueError("no number")

    monkeypatch.setattr(TensorBoardLogger, "log_metrics", wrong)
    with pytest.raises(ValueError, match="no number"):
        Events(tmp_path, "stage", 0).log_metrics({"loss": "x"}, 1)
