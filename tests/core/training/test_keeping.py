"""What is kept of a stage: its last weights, its best ones, or runs on the way."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from anylatent.core.runs import RunDirectory
from anylatent.core.support.files import UserError
from anylatent.core.training.keeping import Best
from anylatent.core.training.settings import CheckpointConfig
from anylatent.core.training.stages.diffusion import DiffusionStage
from tests.cli import CLASSIFY, TINY, rows, steps

OFTEN = [*TINY, *steps(4, 12), "pictures.every=3", "pictures.samples=2", "steps=2"]
LOSSES = {3: 2.0, 6: 1.0, 9: 3.0, 12: 2.0, 15: 1.5}


def losses(run):
    told = [row for row in rows(run / "logs" / "diffusion.csv") if row["held_out_loss"]]
    return {int(row["step"]): float(row["held_out_loss"]) for row in told}


def same(a, b):
    one, two = (load_file(run / "model.safetensors") for run in (a, b))
    return all(torch.equal(one[name], two[name]) for name in one.keys() | two.keys())


@pytest.fixture
def told(monkeypatch):
    """The stage of diffusion tells these losses, one after the other."""

    def begin(first):
        left = iter([loss for step, loss in LOSSES.items() if step >= first])
        monkeypatch.setattr(DiffusionStage, "figures", lambda self: {"held_out_loss": next(left)})

    return begin


def test_the_best_is_the_one_of_those_on_the_way_with_the_lowest_loss(cli, tmp_path, told):
    """Each on the way is a run that samples; going on keeps the best of before."""
    runs = {keep: tmp_path / keep[:5] for keep in ("last", "best", "every:3")}
    said = {}
    for keep, run in runs.items():
        told(3)
        code, said[keep], err = cli("train", f"run={run}", *OFTEN, f"checkpoint.keep={keep}")
        assert code == 0, err
    assert "weights of step 6 are kept, whose held-out loss of 1.0000" in said["best"]
    assert "autoencoder: the weights of step" in said["best"], "it tells its own"

    kept = runs["every:3"] / "kept"
    names = [f"diffusion_{k:06d}" for k in (3, 6, 9)]
    assert sorted(path.name for path in kept.iterdir()) == ["autoencoder_000003", *names]
    assert same(runs["every:3"], runs["last"]) and not same(runs["last"], runs["best"])
    assert same(kept / "diffusion_000006", runs["best"])
    assert RunDirectory(kept / names[0]).stages().steps == {"autoencoder": 4, "diffusion": 3}
    code, _, err = cli("sample", f"run={kept / names[0]}", "n=1", "steps=2")
    assert code == 0 and (kept / names[0] / "samples").is_dir(), err
    code, _, err = cli("sample", f"run={kept / 'autoencoder_000003'}", "n=1")
    assert code == 1 and "Traceback" not in err

    told(15)
    before = load_file(runs["best"] / "model.safetensors")
    longer = ["training.diffusion.steps=15", "checkpoint.keep=best"]
    code, out, err = cli("train", f"run={runs['best']}", *OFTEN, *longer)
    assert code == 0 and "weights of step 6 are kept" in out, err
    assert losses(runs["best"])[15] == 1.5
    after = load_file(runs["best"] / "model.safetensors")
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_weights_of_a_stage_that_was_done_are_among_those_chosen_from(cli, tmp_path, told):
    """Where the best are asked for only when it goes on."""
    told(3)
    assert cli("train", f"run={tmp_path / 'run'}", *OFTEN)[0] == 0
    before = load_file(tmp_path / "run" / "model.safetensors")
    told(6)  # 1.0 for the weights of step 12, then 3.0
    longer = ["training.diffusion.steps=15", "checkpoint.keep=best"]
    code, out, err = cli("train", f"run={tmp_path / 'run'}", *OFTEN, *longer)
    assert code == 0 and "the weights of step 12 are kept, whose held-out loss of 1.0" in out, err
    after = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(value, after[name]) for name, value in before.items())


class Module:
    """What `Best` asks of a stage that is trained."""

    def __init__(self, number=0, value=0.0):
        self.number, self.trained = number, nn.Linear(1, 1)
        self.stage = type("Stage", (), {"label": "mine"})
        nn.init.constant_(self.trained.weight, value)


def test_only_a_lower_loss_replaces_the_best(tmp_path, capsys):
    best = Best(tmp_path / "best.ckpt")
    told = [(1, 2.0), (2, float("nan")), (3, 1.0), (4, 1.0), (5, 3.0)]
    for number, loss in told:
        best.offer(Module(number, number), {"held_out_loss": loss, "other": 0.0})
    module = Module()
    best.take(module, says=True)
    assert float(module.trained.weight.detach()) == 3 and "step 3" in capsys.readouterr().out

    again = Best(best.path)  # a run that goes on from step 2 has not come to that
    again.begin(Module(2))
    assert again.loss == float("inf")
    again.begin(Module(3))
    assert again.loss == 1.0


def test_a_stage_that_tells_no_loss_keeps_its_last_weights(tmp_path, capsys):
    best, module = Best(tmp_path / "best.ckpt"), Module(3, 7.0)
    best.offer(module, {"accuracy": 1.0})
    best.take(module, says=True)
    assert (
        float(module.trained.weight.detach()) == 7 and "no held-out loss" in capsys.readouterr().out
    )


def test_a_file_of_something_else(tmp_path):
    path = tmp_path / "best.ckpt"
    torch.save({"step": 1, "loss": 0.0}, path)
    with pytest.raises(UserError, match="has no weights"):
        Best(path).begin(Module())
    torch.save({"step": 1, "loss": 0.0, "weights": {"x": torch.zeros(1)}}, path)
    with pytest.raises(UserError, match="another model"):
        Best(path).take(Module(), says=False)


def test_settings():
    assert [CheckpointConfig(keep=k).every for k in ("last", "best", "every:500")] == [0, 0, 500]
    for wrong in ("every", "every:0", "every:-3", "first", "every:x", "best:3"):
        with pytest.raises(ValueError, match="there are last, best and every:K"):
            CheckpointConfig(keep=wrong)


def test_the_best_of_nothing_is_refused(fails, tmp_path):
    train = ["train", f"run={tmp_path / 'run'}", *TINY, *steps(1, 1), "checkpoint.keep=best"]
    assert "pictures.every=0 measures none" in fails(*train)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("keep", ["best", "every:2"])
def test_a_classifier_beside_a_run(cli, copied, keep):
    """Its best is chosen too; there are no runs of it on the way."""
    shutil.rmtree(copied / "classifiers", ignore_errors=True)
    train = ["train", f"run={copied}", *CLASSIFY, "training.classifier.steps=4"]
    extra = ["pictures.every=2", f"checkpoint.keep={keep}"]
    code, out, err = cli(*train, *extra)
    assert (code == 0) == (keep == "best"), err
    said = (
        "classifier_digit: the weights of step"
        if keep == "best"
        else "keep=last or best (it is every:2 now)"
    )
    assert said in (out if keep == "best" else " ".join(err.split()))
