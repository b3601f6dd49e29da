"""Processes that learn, from the command line: trained, stopped, continued, sampled, refused."""

import pytest
import torch
from safetensors.torch import load_file

import anylatent as al
from anylatent.core.cli.main import main
from anylatent.core.training.callbacks import Stop
from tests.cli import TINY, steps

LEARNED = [
    "schedule=learned",
    "weighting=elbo",
    "prediction=mixed",
    "times=adaptive",
    "times.bins=4",
    "times.trials=1",
    "features@backbone.features=fourier",
    "training.diffusion.warmup=0",
]


@pytest.fixture(scope="module")
def trained(trained_once):
    return trained_once("learned", [*TINY, *LEARNED, *steps(2, 6)])


def learned_parts(path):
    tensors = load_file(path / "model.safetensors")
    return {
        key: value
        for key, value in tensors.items()
        if any(part in key for part in (".schedule.", ".prediction.", ".times.", "frequencies"))
    }


def test_what_learns_is_trained_and_saved_with_the_run(trained):
    found = learned_parts(trained)
    ends = {key.split("generator.")[1] for key in found}
    parts = ("end", "gain", "slope", "place")
    assert {f"denoiser.schedule.{part}" for part in parts} <= ends
    assert "denoiser.prediction.logits.z" in ends and "objective.times.loss" in ends
    still = [key for key, value in found.items() if not value.any()]
    assert not still, f"never moved from zero: {still}"


def test_a_loaded_run_samples_with_the_schedule_that_it_learned(trained):
    run = al.load(trained, device="cpu")
    schedule = run.system.schedule
    assert schedule is run.system.generator.denoiser.schedule
    assert torch.equal(schedule.gain, learned_parts(trained)["generator.denoiser.schedule.gain"])
    assert float(schedule.log_snr(1.0)) == pytest.approx(-10 + float(schedule.end), abs=1e-5)
    ask = {"steps": 3, "grid": "uniform", "cond": {"digit": 3}}  # another grid for another schedule
    drawn = run.sample(2, **ask).tensor
    assert bool(drawn.isfinite().all())
    schedule.gain.data += 3
    assert not torch.equal(run.sample(2, **ask).tensor, drawn)


def test_a_stopped_run_goes_on_to_the_same_weights(trained, tmp_path, monkeypatch, capsys):
    arguments = ["train", f"run={tmp_path / 'run'}", *TINY, *LEARNED, *steps(2, 6)]

    def stop_early(self, trainer, stage):
        if stage.stage.name == "diffusion" and stage.number == 3:
            self.asked = trainer.should_stop = True

    with monkeypatch.context() as patch:
        patch.setattr(Stop, "after_step", stop_early)
        with pytest.raises(SystemExit):
            main(arguments)
    assert "stopped at diffusion step 3 of 6" in capsys.readouterr().err
    main(arguments)
    whole, parted = (load_file(p / "model.safetensors") for p in (trained, tmp_path / "run"))
    for key, value in whole.items():
        assert torch.equal(value, parted[key]), key


def test_learned_uncertainty_is_trained_with_the_model(tmp_path):
    path = tmp_path / "run"
    choice = ["weighting=learned", "training.diffusion.warmup=0", "prediction=v"]
    main(["train", f"run={path}", *TINY, *choice, *steps(1, 3)])
    found = load_file(path / "model.safetensors")
    assert bool(found["generator.objective.weighting.last.weight"].any())
    al.load(path, device="cpu").sample(1, steps=2)


REFUSED = {
    "schedule that the loss would move": (
        ["schedule=learned"],
        ["easiest noise levels", "weighting=elbo"],
    ),
    "law that follows its own loss": (["times=adaptive"], ["divided out", "weighting=elbo"]),
    "infinite target": (["schedule=sqrt"], ["infinite", "prediction=v"]),
    "zero terminal SNR": (
        ["schedule=zero_terminal_snr", "prediction=noise"],
        ["zero signal-to-noise", "prediction=v"],
    ),
    "no end at zero": (
        ["schedule=zero_terminal_snr", "schedule@schedule.base=edm"],
        ["alpha = 1", "base=vp"],
    ),
}


@pytest.mark.parametrize("case", REFUSED, ids=lambda value: value.replace(" ", "_"))
def test_combinations_without_meaning(case, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides, expected = REFUSED[case]
    with pytest.raises(SystemExit):
        main(["train", "run=somewhere", *overrides])
    message = " ".join(capsys.readouterr().err.split())
    assert message.startswith("anylatent: ") and "Traceback" not in message
    for text in expected:
        assert text in message, message
    assert not list(tmp_path.iterdir())
