"""Kinds of guidance, stacked and set from the command line, on real digits with tiny networks."""

import shutil
from pathlib import Path

import pytest
import torch

import anylatent as al
from anylatent.core.runs.run import RunDirectory
from anylatent.core.runs.weak import weak_denoiser
from anylatent.core.support.files import UserError
from anylatent.modalities.image.pictures import Pictures
from tests.cli import TINY, launch, steps


def another(digits, path, *changes):
    """A run on the latents of that of digits."""
    arguments = [*TINY, *steps(2, 1), f"from={digits}", "take=autoencoder", *changes]
    launch("train", f"run={path}", *arguments)
    return path


@pytest.fixture(scope="module")
def weak(digits, tmp_path_factory):
    """A narrower model on the same latents, less trained."""
    return another(digits, tmp_path_factory.mktemp("weak") / "run", "backbone.channels=4")


@pytest.fixture(scope="module")
def unconditional(digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("unconditional") / "run"
    return another(digits, path, "conditioner=none")


HOW = {"n": 3, "steps": 3}


def sampled(cli, path, out, *extra):
    """The files that a command makes; its samples in bytes."""
    arguments = ["n=3", "steps=3", "cond.digit=7", f"out={out}", *extra]
    code, _, err = cli("sample", f"run={path}", *arguments)
    assert code == 0, err
    return [p.read_bytes() for p in sorted(out.glob("0_*.png"))]


def drawn(path, guidance, **more):
    run = al.load(path, device="cpu")
    return run.sample(**{**HOW, "cond": {"digit": 7}, "guidance": guidance, **more}).tensor


# ---- every kind -------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [n for n in al.names("guidance") if n != "none"])
def test_every_kind_guides_whatever_the_batch(name, digits, weak, cli, tmp_path):
    scale = 4000.0 if name == "classifier" else 40.0  # which knows nothing yet
    extra = [f"guidance={name}", f"guidance.scale={scale}"]
    extra += [f"guidance.weak={weak}"] if name == "autoguidance" else []
    together = sampled(cli, digits, tmp_path / "a", *extra)
    assert len(together) == 3
    one_by_one = sampled(cli, digits, tmp_path / "b", *extra, "batch=1")
    node = {"name": name, "scale": scale} | ({"weak": str(weak)} if name == "autoguidance" else {})
    guided = drawn(digits, node)
    assert torch.allclose(guided, drawn(digits, node, batch=1), atol=1e-3)
    plain = drawn(digits, {"name": "none"})
    assert float((guided - plain).abs().max()) > 1e-3
    far = drawn(digits, {**node, "sigma_min": 1e9, "sigma_max": 1e10})
    assert torch.equal(far, plain), "outside its interval"
    assert len(one_by_one) == 3


def test_a_scale_for_each_condition(digits, cli, tmp_path):
    one = sampled(cli, digits, tmp_path / "a", "guidance.scales.digit=300")
    two = sampled(cli, digits, tmp_path / "b", "guidance.scale=300")
    none = sampled(cli, digits, tmp_path / "c", "guidance=none")
    assert one == two != none


def test_guidance_of_guidance(digits, cli, tmp_path):
    """classifier(classifier_free(denoiser)): the inner one set, and each without the other."""
    inner = ["guidance.denoiser=classifier_free", "guidance.denoiser.scale=300"]
    outer = ["guidance=classifier", "guidance.scale=60000"]
    late = ["guidance.sigma_max=1e-6"]
    both = sampled(cli, digits, tmp_path / "a", *outer, *inner)
    first = sampled(cli, digits, tmp_path / "b", *outer, *inner, *late)
    assert first == sampled(cli, digits, tmp_path / "c", "guidance.scale=300")
    second = sampled(cli, digits, tmp_path / "d", *outer)
    assert len({tuple(both), tuple(first), tuple(second)}) == 3
    node = {"name": "classifier", "scale": 60000.0}
    node |= {"denoiser": {"name": "classifier_free", "scale": 300.0}}
    Pictures(drawn(digits, node)).save(tmp_path / "e", ["0_0", "0_1", "0_2"])
    assert both == [p.read_bytes() for p in sorted((tmp_path / "e").glob("*.png"))]


def test_a_run_remembers_its_stack_and_its_scales(digits, cli, tmp_path):
    """What it was trained with is what sampling without a word does, and can be changed."""
    from omegaconf import OmegaConf

    path = Path(shutil.copytree(digits, tmp_path / "copy"))
    config = OmegaConf.load(path / "config.yaml")
    config.sampling.guidance = {
        "name": "classifier",
        "scale": 60000.0,
        "denoiser": {"name": "classifier_free", "scale": 1.0, "scales": {"digit": 300.0}},
    }
    (path / "config.yaml").write_text(OmegaConf.to_yaml(config))
    stack = ["guidance=classifier", "guidance.scale=60000", "guidance.denoiser=classifier_free"]
    said = sampled(cli, digits, tmp_path / "a", *stack, "guidance.denoiser.scales.digit=300")
    assert sampled(cli, path, tmp_path / "b") == said
    changed = sampled(cli, path, tmp_path / "c", "guidance.denoiser.scales.digit=1")
    assert changed == sampled(cli, digits, tmp_path / "d", *stack, "guidance.denoiser.scale=1")
    assert changed != said
    gone = sampled(cli, path, tmp_path / "e", "guidance.denoiser=none")
    assert gone == sampled(cli, digits, tmp_path / "f", *stack[:2])


def test_training_takes_a_stack(tmp_path, cli):
    stack = ["guidance=projected", "guidance.denoiser=classifier_free", "guidance.denoiser.scale=3"]
    stack += ["guidance.threshold=.1", "guidance.denoiser.scales.digit=2", "pictures.every=2"]
    stack += ["pictures.samples=2", "steps=2"]
    plain = [argument for argument in TINY if "pictures" not in argument]
    code, _, err = cli("train", f"run={tmp_path / 'run'}", *plain, *steps(1, 2), *stack)
    assert code == 0, err
    node = RunDirectory(tmp_path / "run").config().sampling.guidance
    assert node["denoiser"]["scales"] == {"digit": 2} and node["denoiser"]["scale"] == 3
    assert len(sampled(cli, tmp_path / "run", tmp_path / "out")) == 3


# ---- weaker runs ------------------------------------------------------------------------------
def test_itself_as_the_weak_one_changes_nothing(digits):
    node = {"name": "autoguidance", "scale": 9.0, "weak": str(digits)}
    assert torch.equal(drawn(digits, node), drawn(digits, {"name": "none"}))


def test_a_weak_run_need_not_know_the_conditions(digits, unconditional):
    """Then it is guided by the condition too."""
    node = {"name": "autoguidance", "scale": 300.0, "weak": str(unconditional)}
    guided, plain = drawn(digits, node), drawn(digits, {"name": "none"})
    assert bool(guided.isfinite().all()) and not torch.equal(guided, plain)


def test_a_weak_run_is_loaded_once(digits, weak, monkeypatch):
    run, loads = al.load(digits, device="cpu"), []
    original = type(run).load.__func__
    noted = classmethod(lambda cls, path, *more: loads.append(path) or original(cls, path, *more))
    monkeypatch.setattr(type(run), "load", noted)
    node = {"name": "autoguidance", "weak": str(weak)}
    for _ in range(2):
        run.sample(3, batch=1, steps=2, guidance=node)
    assert loads == [str(weak)]


def test_weak_runs_that_do_not_fit(digits, weak, unconditional, tmp_path, fails):
    def refused(path):
        message = fails("sample", f"run={digits}", "n=1", *start, f"guidance.weak={path}")
        assert "can not guide" in message and "take=autoencoder" in message
        return message

    start = ["guidance=autoguidance"]
    assert "guidance.weak=RUN" in fails("sample", f"run={digits}", "n=1", *start)
    message = fails("sample", f"run={digits}", "n=1", *start, f"guidance.weak={tmp_path / 'no'}")
    assert "there is no run at" in message
    fresh = tmp_path / "fresh"
    launch("train", f"run={fresh}", *TINY, *steps(1, 1), "seed=1")
    assert "autoencoder has other values" in refused(fresh)
    shape = tmp_path / "shape"
    changes = ["autoencoder.latent_channels=2"]
    launch("train", f"run={shape}", *TINY, *steps(1, 1), *changes)
    assert "its latents are LatentSpec(z: (2," in refused(shape)
    schedule = another(digits, tmp_path / "schedule", "schedule=cosine", "prediction=v")
    message = refused(schedule)
    assert "schedule is another one" in message and "autoencoder" not in message.split(". ")[0]
    message = fails("sample", f"run={unconditional}", "n=1", *start, f"guidance.weak={weak}")
    assert "conditions that this run has not: digit" in message


def test_weak_runs_of_other_classes_or_normalisers(digits, weak):
    run, other = al.load(digits, device="cpu"), al.load(weak, device="cpu")
    assert weak_denoiser(run, other, run.system.generator.denoiser) is not None
    other.config.classes["digit"][0] = "nought"
    other.system.normaliser.scale_z.mul_(1.1)
    with pytest.raises(UserError, match="normaliser has other values; its data say .*nought"):
        weak_denoiser(run, other, run.system.generator.denoiser)


# ---- mistakes ---------------------------------------------------------------------------------
def test_mistakes_are_messages(digits, fails, tmp_path):
    def message(*arguments):
        return fails("sample", f"run={digits}", "n=1", *arguments)

    said = message("guidance.scales.colour=3")
    assert "no such condition" in said and "digit" in said
    assert "many" in message("guidance.scales.digit=many")
    said = message("guidance.denoiser=nothing")
    assert "nothing" in said and "projected" in said
    assert "scael" in message("guidance.denoiser=classifier_free", "guidance.denoiser.scael=1")
    assert "threshold" in message("guidance=projected", "guidance.threshold=0")
    train = ["train", f"run={tmp_path / 'run'}", *TINY, "guidance=autoguidance"]
    assert "finished one only" in fails(*train, f"guidance.weak={digits}")
    assert not (tmp_path / "run").exists()
