import os
import shutil
from pathlib import Path

import pytest
import torch

from anylatent.core.support.locks import Claims
from tests.cli import CLASSIFY, DIGITS, answer, launch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small tensors: threads only get in one another's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- what a whole session shares --------------------------------------------------------------
@pytest.fixture(scope="session")
def session(tmp_path_factory):
    """A folder that the processes of a session have in common."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "session"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(autouse=True, scope="session")
def cache(session):
    """Where data and latents are cached: empty when the session begins, unless ANYLATENT_CACHE
    names a directory that is to be kept."""
    with pytest.MonkeyPatch.context() as patch:
        if "ANYLATENT_CACHE" not in os.environ:
            patch.setenv("ANYLATENT_CACHE", str(session / "cache"))
        yield Path(os.environ["ANYLATENT_CACHE"])


@pytest.fixture(scope="session")
def trained_once(session):
    """Trains a run by one command or more, once in a session, whoever asks first: its folder.

    It is read only: whoever changes a run copies it.
    """

    def train(name, *commands):
        folder = session / name
        with Claims(session / f"{name}.lock") as claims, claims.claim(0):
            if not (folder / "done").exists():
                shutil.rmtree(folder, ignore_errors=True)
                for arguments in commands:
                    launch("train", f"run={folder / 'run'}", *arguments)
                (folder / "done").touch()
        return folder / "run"

    return train


@pytest.fixture(scope="session")
def digits(trained_once):
    """A small model of digits that has heard of their labels, with a classifier of them."""
    return trained_once("digits", DIGITS, [*CLASSIFY, "training.classifier.steps=2"])


# ---- commands ---------------------------------------------------------------------------------
@pytest.fixture
def copied(digits, tmp_path):
    return Path(shutil.copytree(digits, tmp_path / "copy"))


@pytest.fixture
def cli(capsys):
    """Runs a command in this process: exit code, output, errors."""
    return lambda *arguments: answer(capsys, *arguments)


@pytest.fixture
def stop_at(monkeypatch):
    """Stops a stage after one of its steps as Ctrl-C does, until what it gives back is called."""
    from anylatent.core.training import callbacks  # which imports Lightning

    def stop(stage, number):
        old = callbacks.Stop.after_step

        def after(self, trainer, module):
            self.asked = self.asked or (module.stage.label, module.number) == (stage, number)
            old(self, trainer, module)

        monkeypatch.setattr(callbacks.Stop, "after_step", after)
        return lambda: monkeypatch.setattr(callbacks.Stop, "after_step", old)

    return stop


@pytest.fixture
def fails(cli):
    """Runs a command that must fail; its message."""

    def run(*arguments):
        code, _, err = cli(*arguments)
        assert code == 1, (code, err)
        assert "anylatent: " in err and "Traceback" not in err
        return err

    return run
