"""Classifiers of noisy latents from end to end, on real digits with tiny networks."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import anylatent as al
from anylatent.core.runs.run import RunDirectory
from anylatent.core.support.files import UserError
from anylatent.core.training.encoding import Encoder
from tests.cli import CLASSIFY, TINY, launch, rows, steps

PLAIN = ["conditioner=none" if s == "conditioner=label" else s for s in TINY]


@pytest.fixture(scope="module")
def plain(trained_once):
    """A diffusion model without conditions."""
    return trained_once("plain", [*PLAIN, *steps(2, 2)])


@pytest.fixture(scope="module")
def pixels(trained_once):
    """One of the pictures themselves, which hide no digit: two steps, so that it draws noise."""
    arguments = [s for s in PLAIN if not s.startswith("autoencoder.")]
    return trained_once("pixels", [*arguments, "autoencoder=identity", *steps(2, 2)])


@pytest.fixture(scope="module")
def steered(plain, tmp_path_factory):
    """The same with a classifier of its digits, and what its training printed."""
    path = Path(shutil.copytree(plain, tmp_path_factory.mktemp("steered") / "run"))
    extra = ["training.classifier.steps=4", "log_every=2", "pictures.every=2"]
    return path, launch("train", f"run={path}", *CLASSIFY, *extra)


@pytest.fixture
def copied(plain, tmp_path):
    return Path(shutil.copytree(plain, tmp_path / "copy"))


# ---- training ---------------------------------------------------------------------------------
def test_what_a_run_has_afterwards(steered, plain):
    path, out = steered
    assert "digit of held-out samples by noise level" in out and "| log-SNR" in out
    assert "guidance=classifier" in out and "cond.digit=" in out
    (file,) = (path / "classifiers").iterdir()
    with safe_open(file, framework="pt") as opened:
        said = json.loads(opened.metadata()["classifier"])
    assert file.name == "digit.safetensors" and said["label"] == "digit"
    assert said["classes"] == [str(i) for i in range(10)]
    assert said["backbone"]["name"] == "unet" and said["backbone"]["channels"] == 8
    assert said["how"]["training"]["steps"] == 4
    assert not list((path / "checkpoints").glob("*"))
    for name in ("model.safetensors", "config.yaml"):
        assert (path / name).read_bytes() == (plain / name).read_bytes(), "the run is as it was"


def test_its_logs(steered):
    path, out = steered
    told = rows(path / "logs" / "classifier_digit.csv")
    assert [r["step"] for r in told if r.get("loss")] == ["2", "4"]
    assert all(0 <= float(r["accuracy"]) <= 1 for r in told if r.get("accuracy"))
    drawn = [r for r in told if r.get("accuracy_at_0")]
    assert [r["step"] for r in drawn] == ["2", "4"]
    final = rows(path / "logs" / "classifier_digit_accuracy.csv")
    assert [float(r["log_snr"]) for r in final] == [8, 4, 2, 0, -2, -4, -6]
    line = next(line for line in out.splitlines() if line.startswith("| accuracy"))
    shown = [cell.strip() for cell in line.strip("| ").split("|")[1:]]
    assert shown == [f"{float(r['accuracy']):.3f}" for r in final]
    chance = float(out.split("commonest class: ")[1].split(")")[0])
    assert 0.1 <= chance < 0.2


def test_a_finished_one_is_left_alone_and_another_is_refused(steered, cli, fails, tmp_path):
    path = Path(shutil.copytree(steered[0], tmp_path / "copy"))
    file = path / "classifiers" / "digit.safetensors"
    before = file.stat().st_mtime_ns
    code, out, err = cli("train", f"run={path}", *CLASSIFY, "training.classifier.steps=4")
    assert code == 0 and "trained" in out, err
    code, _, err = cli("train", f"run={path}", *PLAIN, *steps(2, 2), *CLASSIFY[:2], *CLASSIFY[4:],
                       "training.classifier.steps=4")  # fmt: skip
    assert code == 0, err
    assert file.stat().st_mtime_ns == before
    other = ["training.classifier.steps=5"]
    assert "other settings" in fails("train", f"run={path}", *CLASSIFY, *other)
    assert file.stat().st_mtime_ns == before
    file.unlink()
    code, _, err = cli("train", f"run={path}", *CLASSIFY, *other)
    assert code == 0 and file.exists(), err


def test_a_backbone_of_its_own(copied, cli, tmp_path):
    """Settings that differ, or another one; the latents are not encoded again."""
    made = []
    for backbone in ("{channels:16}", "{name:dit,width:16,depth:1,heads:1,patch:2}"):
        extra = [f"classifier.backbone={backbone}", "training.classifier.steps=1"]
        code, _, err = cli("train", f"run={copied}", *CLASSIFY, *extra)
        assert code == 0, err
        file = copied / "classifiers" / "digit.safetensors"
        with safe_open(file, framework="pt") as opened:
            made.append(json.loads(opened.metadata()["classifier"])["backbone"])
        assert al.load(copied, device="cpu").system.classifiers.keys() == {"digit"}
        file.unlink()
    assert made[0]["name"] == "unet" and made[0]["channels"] == 16 and made[0]["embedding"] == 16
    assert made[1] == {"name": "dit", "width": 16, "depth": 1, "heads": 1, "patch": 2}


def test_latents_of_a_finished_run_are_not_encoded_again(copied, cli, monkeypatch):
    monkeypatch.setattr(Encoder, "__call__", lambda self, entries: pytest.fail("encoded again"))
    code, _, err = cli("train", f"run={copied}", *CLASSIFY, "training.classifier.steps=1")
    assert code == 0, err


WELL = [argument for argument in CLASSIFY if "batch" not in argument]
WELL += ["training.classifier.steps=60", "training.classifier.batch=64"]
WELL += ["training.classifier.optimizer.lr=5e-3", "training.classifier.warmup=10"]
WELL += ["training.classifier.average=0.9", "classifier.backbone={channels:16,embedding:32}"]


def test_it_learns_digits_where_noise_leaves_any(pixels, cli, tmp_path):
    path = Path(shutil.copytree(pixels, tmp_path / "run"))
    code, _, err = cli("train", f"run={path}", *WELL)
    assert code == 0, err
    told = rows(path / "logs" / "classifier_digit_accuracy.csv")
    found = {float(row["log_snr"]): float(row["accuracy"]) for row in told}
    assert found[8] > 0.7 and 0.3 < found[-2] < found[2] - 0.1 and found[-6] < 0.25, found


def test_stopped_and_gone_on_with_it_ends_with_the_same_weights(plain, cli, stop_at, tmp_path):
    runs = [Path(shutil.copytree(plain, tmp_path / name)) for name in ("whole", "stopped")]
    extra = [*CLASSIFY, "training.classifier.steps=60", "log_every=5"]
    launch("train", f"run={runs[0]}", *extra)
    go_on = stop_at("classifier_digit", 20)
    code, _, err = cli("train", f"run={runs[1]}", *extra)
    assert code == 1 and "stopped at classifier_digit step 20 of 60" in err, err
    assert (runs[1] / "checkpoints" / "classifier_digit.ckpt").exists()
    assert not (runs[1] / "classifiers").exists(), "whole or not there"
    go_on()
    launch("train", f"run={runs[1]}", *extra)
    expected, got = (load_file(run / "classifiers" / "digit.safetensors") for run in runs)
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        assert torch.equal(value, got[name]), name


def test_a_checkpoint_of_other_settings_is_refused(copied, fails, cli, monkeypatch):
    """Not continued with another network or plan."""
    monkeypatch.setattr(RunDirectory, "checkpoint", lambda self, stage: copied / f"{stage}.ckpt")
    state = {"made_by": "{}", "step": 1}
    torch.save(state, copied / "classifier_digit.ckpt")
    assert "other settings" in fails("train", f"run={copied}", *CLASSIFY)


# ---- guidance ---------------------------------------------------------------------------------
STEER = ["guidance=classifier", "guidance.scale=5", "cond.digit=7"]


def test_sampling_under_a_label(steered, cli, tmp_path):
    """It changes samples, by its scale, reproducibly, whatever the batch."""
    path, common = steered[0], ["n=3", "steps=3"]
    variants = {
        "plain": [],
        "none": ["guidance=classifier"],
        "seven": STEER,
        "again": [*STEER, "batch=1"],
        "name": ["guidance=classifier", "guidance.scale=5", "cond.digit='7'"],
        "off": ["guidance=classifier", "guidance.scale=0", "cond.digit=7"],
    }
    for name, extra in variants.items():
        code, _, err = cli("sample", f"run={path}", *common, *extra, f"out={tmp_path / name}")
        assert code == 0, err
    run = al.load(path, device="cpu")
    how = {"n": 3, "steps": 3}
    plain = run.sample(**how)
    guide = {"name": "classifier", "scale": 500.0}
    seven, two = (run.sample(**how, guidance=guide, cond={"digit": d}) for d in (7, "2"))
    assert not torch.equal(plain.tensor, seven.tensor)
    assert not torch.equal(seven.tensor, two.tensor)
    off = run.sample(**how, guidance={**guide, "scale": 0.0}, cond={"digit": 7})
    assert torch.equal(plain.tensor, off.tensor)
    alone = run.sample(**how, guidance=guide, cond={"digit": 7}, batch=1)
    assert torch.allclose(seven.tensor, alone.tensor, atol=1e-4)
    each = run.sample(**how, guidance=guide, cond={"digit": [7, None, 2]})
    assert torch.allclose(each[0], seven[0], atol=1e-4)
    assert torch.allclose(each[1], plain[1], atol=1e-4), "None asks for nothing"
    assert torch.allclose(each[2], two[2], atol=1e-4)
    sheets = {n: (tmp_path / n / "contact_sheet.png").read_bytes() for n in variants}
    assert sheets["plain"] == sheets["none"] == sheets["off"]
    assert sheets["seven"] == sheets["name"]


def test_a_row_for_each_class(steered, cli, tmp_path):
    extra = ["each=digit", "n=1", "steps=1", "guidance=classifier", f"out={tmp_path}"]
    code, _, err = cli("sample", f"run={steered[0]}", *extra)
    assert code == 0, err
    assert len(list(tmp_path.glob("*_0_*.png"))) == 10


@pytest.mark.slow
def test_samples_follow_the_label(pixels, cli, tmp_path):
    """Whatever the model draws, a classifier finds in it what was asked for."""
    path = Path(shutil.copytree(pixels, tmp_path / "run"))
    assert cli("train", f"run={path}", *WELL)[0] == 0
    run = al.load(path, device="cpu")
    digits, shares = torch.arange(60) % 10, []
    for scale in (0.0, 3.0):
        guidance = {"name": "classifier", "scale": scale}
        pictures = run.sample(60, guidance=guidance, cond={"digit": digits.tolist()})
        with torch.no_grad():
            posterior = run.system.autoencoder.encode({"image": pictures.tensor})
            z = run.system.normaliser.encode(posterior.mean)
            guess = run.system.classifiers["digit"](z, 0.05).argmax(1)
        shares.append(float((guess == digits).float().mean()))
    assert shares[0] < 0.3 and shares[1] > shares[0] + 0.25, shares


class Asked(al.Metric):
    """Notes the conditions that samples were drawn under."""

    def samples(self, outputs, columns):
        return {name: float(sum(values)) for name, values in columns.items()}

    def reconstructions(self, originals, outputs):
        return {"count": float(len(outputs))}

    def baselines(self, conditions=()):
        return {name: {} for name in conditions}


def asked(modality, data, chosen):
    return al.Metrics([Asked()])


def test_evaluation_asks_for_labels_under_their_guidance_only(steered, cli, tmp_path, monkeypatch):
    monkeypatch.setattr(al.Metrics, "of", asked)
    extra = ["n=8", "steps=1", f"out={tmp_path}"]
    for more, wanted in (([], {}), (STEER[:2], {"digit": 0.0})):
        code, _, err = cli("evaluate", f"run={steered[0]}", *extra, *more)
        assert code == 0, err
        figures = json.loads((tmp_path / "evaluation.json").read_text())
        assert figures["samples"]["samples"] == wanted, "the first held-out digits are zeros"
    assert al.load(steered[0], device="cpu").conditions({"name": "classifier"}) == ["digit"]


# ---- bad input --------------------------------------------------------------------------------
def test_labels_and_runs_that_do_not_fit(copied, fails, cli, tmp_path):
    run = f"run={copied}"
    message = fails("train", run, "stage=classifier", "classifier.label=colour")
    assert "colour" in message and "class columns of the data are digit" in message
    assert "not set" in fails("train", run, "stage=classifier")
    message = fails("train", run, *CLASSIFY, "classifier.backbone={name:nothing}")
    assert "no backbone 'nothing'" in message
    assert "no setting" in fails("train", run, *CLASSIFY, "classifier.backbone={colour:1}")
    assert "training.classifier.steps=0: 1 is" in fails(
        "train", run, *CLASSIFY, "training.classifier.steps=0"
    )
    assert "no run at" in fails("train", f"run={tmp_path / 'nowhere'}", *CLASSIFY)
    assert not (tmp_path / "nowhere").exists()
    message = fails("train", run, *CLASSIFY, *PLAIN, *steps(2, 2), "backbone.channels=16")
    assert "another configuration" in message and "backbone.channels: 8 there, 16 now" in message
    assert not (copied / "classifiers").exists()


def test_a_run_without_a_finished_diffusion_model(cli, fails, tmp_path):
    run = f"run={tmp_path / 'run'}"
    assert cli("train", run, *PLAIN, *steps(1, 1), "stage=autoencoder")[0] == 0
    message = fails("train", run, *CLASSIFY)
    assert "no finished generator" in message and "stage=all" in message


def test_asking_without_classifier_or_guidance(copied, steered, fails, cli):
    message = fails("sample", f"run={copied}", "n=1", "cond.digit=7")
    assert "no condition digit" in message and "stage=classifier classifier.label=digit" in message
    message = fails("sample", f"run={copied}", "n=1", "guidance=classifier")
    assert "no classifier" in message and "stage=classifier classifier.label=" in message
    path, _ = steered
    message = fails("sample", f"run={path}", "n=1", "cond.digit=7")
    assert "cond.digit" in message and "add guidance=classifier" in message
    message = fails("sample", f"run={path}", "n=1", *STEER[:2], "cond.digit=eleven")
    assert "unknown digit" in message and "7, 8, 9" in message
    message = fails("sample", f"run={path}", "n=1", *STEER[:2], "cond.colour=red")
    assert "no condition colour; this run has digit" in message


def test_a_classifier_that_is_broken(steered, fails, tmp_path):
    path = Path(shutil.copytree(steered[0], tmp_path / "copy"))
    file = path / "classifiers" / "digit.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    assert "not a whole safetensors file" in fails("sample", f"run={path}", "n=1", *STEER)
    with pytest.raises(UserError):
        al.load(path)
