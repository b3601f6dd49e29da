"""What newcomers type by mistake is one sentence, before anything is computed or written; what
looks alike and is right is done."""

import pytest

from tests.cli import QUICK, TINY, steps

FEW = [*TINY, *QUICK, *steps(1, 2)]
WITHOUT_MEANING = {
    "log_every=0": "log_every=0: a line every 1 step or more",
    "pictures.every=-1": "pictures.every=-1 and pictures.samples=16: the least",
    "pictures.samples=0": "pictures.samples=0: the least are 0, for none, and 1",
    "checkpoint.seconds=-1": "checkpoint.seconds=-1",
    "seed=99999999999999999999": "seed=99999999999999999999: there are those of 64 bits",
    "training.diffusion.workers=-1": "training.diffusion.workers=-1: 0 is the least",
    "training.diffusion.clip=-1": "training.diffusion.clip=-1.0: 0 is the least",
    "training.diffusion.optimizer.lr=-1": "settings of optimizer: Invalid learning rate: -1",
    "training.diffusion.optimizer.betas=[2,3]": "settings of optimizer: Invalid beta",
    "backbone.multipliers=[]": "multipliers",
    "backbone.channels=0": "would have the shape (0, ",
    "backbone.channels=-8": "backbone=unet can't be built with {'channels': -8",
    "autoencoder.channels=0": "autoencoder.encoder.body.0.weight would have the shape (0, ",
    "run=": "run= is empty",
}


@pytest.mark.parametrize("setting", WITHOUT_MEANING)
def test_settings_without_meaning(setting, tmp_path, fails, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = [*FEW, f"run={tmp_path / 'run'}", setting]
    given = {item.partition("=")[0]: item for item in told}  # the last of each
    assert WITHOUT_MEANING[setting] in fails("train", *given.values())
    assert not list(tmp_path.iterdir())


OUT = {
    "file": "is a file; give a directory",
    "file/below": "is a file; give a directory",
    "closed/below": "nothing may be written into",
}


@pytest.mark.parametrize("out", OUT)
@pytest.mark.parametrize("command", ["sample", "invert"])
def test_where_nothing_can_be_written(out, command, digits, fails, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "closed").mkdir()
    monkeypatch.setattr("os.access", lambda path, how: path.name != "closed")
    monkeypatch.setattr("anylatent.core.runs.run.Run.draw", lambda *_: pytest.fail("drawn"))
    error = fails(command, f"run={digits}", "n=1", "steps=2", f"out={tmp_path / out}")
    assert f"out={tmp_path / out}: " in error and OUT[out] in error
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("command", ["sample", "invert"])
def test_a_name_that_no_file_system_takes(command, digits, fails, monkeypatch):
    monkeypatch.setattr("anylatent.core.runs.run.Run.draw", lambda *_: pytest.fail("drawn"))
    error = fails(command, f"run={digits}", "n=1", "steps=2", f"out={'long' * 100}")
    assert "File name too long; give another one" in error and "Errno" not in error


def test_words_that_are_no_settings(fails):
    assert "'nonsense' is no setting: what is told is KEY=VALUE" in fails("cache", "nonsense")
    assert "'modality' is no setting" in fails("train", "modality", "image")
    assert "'nonsense' is no setting" in fails("train", "--cfg", "job", "--resolve", "nonsense")
    assert "'cache clear' takes no settings" in fails("cache", "clear", "foo=3")


def test_a_folder_that_is_not_there_yet_is_made(digits, cli, tmp_path):
    out = tmp_path / "not" / "there, yet"
    assert cli("sample", f"run={digits}", "n=1", "steps=1", f"out={out}")[0] == 0
    assert (out / "contact_sheet.png").exists()
