"""The precision and the compilation of networks outside training, and nothing else in it."""

import json

import pytest
import torch
from safetensors import safe_open

import anylatent as al
from anylatent.core.nn.precision import computed_in, exactly, is_exact
from anylatent.core.registry import build
from anylatent.core.reports.likelihood import DataLikelihood
from anylatent.core.runs import Computing, RunDirectory
from anylatent.core.runs import computing as module
from tests.cli import QUICK, TINY, steps

LOW = torch.bfloat16
SAME = {"seed": 3, "steps": 4, "cond": {"digit": "3"}}


def loaded(run, precision, **settings):
    return al.load(run, device="cpu", precision=precision, **settings)


def seen(model):
    """Whether autocast is on in each call of a backbone, and the kind of what comes in."""
    found = []
    for network in model.system.modules():
        if isinstance(network, al.Backbone):
            network.register_forward_pre_hook(
                lambda _, args: found.append((torch.is_autocast_enabled("cpu"), args[0].dtype))
            )
    return found


def test_networks_alone_compute_in_it(digits):
    model, states = loaded(digits, "bf16"), []
    calls = seen(model)

    def note(index, t, x):
        states.append((torch.is_autocast_enabled("cpu"), x.dtype))

    made = model.sample(2, **SAME, callback=note, guidance=2.0).tensor
    assert set(calls) == {(True, torch.float32)} and set(states) == {(False, torch.float32)}
    assert made.dtype == torch.float32 and model.precision == "bf16"
    exact = loaded(digits, "32").sample(2, **SAME, guidance=2.0).tensor
    error = (made - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert 0 < error < 0.05
    alone = model.sample(seeds=[(3, 1)], **{**SAME, "seed": 0}, guidance=2.0).tensor
    assert (alone[0] - made[1]).square().mean().sqrt() < 0.05


def test_decoders_do_and_classifiers_too(digits):
    model = loaded(digits, "bf16")
    kinds = []
    decoder = model.system.autoencoder.decoder
    decoder.register_forward_hook(lambda *all_: kinds.append(all_[-1].dtype))
    z = model.system.autoencoder.spec.blank(1)
    assert model.system.decode(z).tensor.dtype == torch.float32 and kinds == [LOW]
    (classifier,) = model.system.classifiers.values()
    assert classifier.backbone.computes_in == LOW
    assert classifier(z, 0.5).dtype == torch.float32


def test_a_run_is_sampled_in_what_it_was_trained_in_where_that_is_there(digits, monkeypatch):
    system = loaded(digits, "32").system
    for there, trained, expected in (
        (True, "bf16-mixed", LOW),
        (False, "bf16-mixed", None),
        (True, "32-true", None),
    ):
        monkeypatch.setattr(module, "has_bfloat16", lambda device, there=there: there)
        Computing("cpu").placed(system, trained)
        assert computed_in(system) == expected
        Computing("cpu", 32).placed(system, trained)
        assert computed_in(system) is None


def test_a_run_says_what_it_was_trained_in_and_an_older_one_is_of_float32(cli, tmp_path):
    run = tmp_path / "run"
    told = ["train", f"run={run}", *TINY, *QUICK, *steps(1, 1), "trainer.precision=bf16-mixed"]
    told.append("pictures.every=0")
    code, _, err = cli(*told)
    assert code == 0, err
    with safe_open(run / "model.safetensors", "pt") as file:
        assert file.metadata()["precision"] == "bf16-mixed"
    assert RunDirectory(run).stages().precision == "bf16-mixed"
    for precision in ("bf16", "32"):
        told = ["invert", f"run={run}", "n=2", "steps=2", f"precision={precision}"]
        code, _, err = cli(*told)
        assert code == 0, err
        how = json.loads((run / "inversion" / "inversion.json").read_text())["how"]
        assert f"precision {precision}" in how
    metadata = {"stages": "autoencoder,diffusion", "ready": "yes"}
    assert RunDirectory(run).stages().read(metadata, run).precision == "32-true"


def test_likelihood_is_of_float32(digits):
    found = []
    for precision in ("32", "bf16"):
        model = loaded(digits, precision)
        data = build("data", model.config.data)
        batch = model.system.modality.collate([data.held_out()[i] for i in range(3)])
        measure = build("likelihood", {"name": "elbo", "samples": 3})
        part = DataLikelihood(model.system, measure, ["digit"])
        found.append(part.figures([batch], 0))
        assert computed_in(model.system) == {"32": None, "bf16": LOW}[precision]
    assert found[0] == found[1] and found[0]


def test_a_solver_that_asks_for_more_is_given_it_and_that_is_told(digits):
    model, exact = loaded(digits, "bf16"), loaded(digits, "32")
    fine = {**SAME, "solver": {"name": "dopri5", "tolerance": 1e-3}, "steps": 1}
    with pytest.warns(UserWarning, match="solver is 0.001: they compute in float32"):
        made = model.sample(1, **fine).tensor
    assert torch.equal(made, exact.sample(1, **fine).tensor) and model.precision == "bf16"
    coarse = {**fine, "solver": {"name": "dopri5", "tolerance": 0.1}}
    assert not torch.equal(model.sample(1, **coarse).tensor, exact.sample(1, **coarse).tensor)


def test_in_the_block_every_network_is_exact_and_as_it_is_written(digits):
    """Those of a weaker run too, loaded within it; compiled or not."""
    model, before = loaded(digits, "bf16"), torch.get_float32_matmul_precision()
    calls, networks = [], [m for m in model.system.modules() if isinstance(m, al.Backbone)]
    for network in networks:
        network.compile(backend=lambda *_: pytest.fail("compiled"))
        network.register_forward_pre_hook(lambda *_: calls.append(torch.is_autocast_enabled("cpu")))
    fine = {**SAME, "solver": {"name": "dopri5", "tolerance": 1e-3}, "steps": 1}
    weak = {"name": "autoguidance", "weak": str(digits), "scale": 2.0}
    with pytest.warns(UserWarning, match="they compute in float32"):
        made = model.sample(1, **fine, guidance=weak).tensor
    assert calls and not any(calls) and model.precision == "bf16"
    (other,) = model._others.values()
    assert computed_in(other.system) == LOW, "that of the run it stands beside"
    exact = loaded(digits, "32").sample(1, **fine, guidance=weak).tensor
    assert torch.equal(made, exact)
    with pytest.raises(ZeroDivisionError), exactly():
        assert torch.get_float32_matmul_precision() == "highest"
        1 / 0  # noqa: B018
    assert not is_exact() and torch.get_float32_matmul_precision() == before


def test_backbones_are_compiled_where_that_is_asked_for(digits, monkeypatch):
    asked = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **how: asked.append((type(self).__name__, how))
    )
    for given, mode in ((True, None), ("reduce-overhead", "reduce-overhead"), (False, None)):
        asked.clear()
        system = loaded(digits, "32", compile=given).system
        wanted = [("UNet", {"mode": mode})] * 2 if given else []  # the classifier has one too
        assert asked == wanted
        replayed = {m.replayed for m in system.modules() if isinstance(m, al.Backbone)}
        assert replayed == {given == "reduce-overhead"}


@pytest.mark.parametrize("how", [True, "reduce-overhead"])
def test_a_compiled_run_makes_the_same_samples(how, digits, monkeypatch):
    compiling = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, mode: compiling(self, backend="aot_eager")
    )
    plain = loaded(digits, "32").sample(2, **SAME, guidance=2.0).tensor
    made = loaded(digits, "32", compile=how).sample(2, **SAME, guidance=2.0).tensor
    assert (made - plain).abs().max() < 1e-4


REFUSED = {
    "precision=16": "numbers of 16 bits with a short exponent overflow",
    "precision=64": "precision=64: there are 32, bf16, run",
    "compile=1": "compile=1: there are false, true, reduce-overhead",
    "compile=fast": "compile=fast: there are false, true, reduce-overhead",
    "device=tpu": "device=tpu: there is cpu",
}


@pytest.mark.parametrize("setting", REFUSED)
@pytest.mark.parametrize("command", ["sample", "invert", "evaluate"])
def test_what_there_is_not(setting, command, digits, fails, tmp_path):
    error = fails(command, f"run={digits}", "n=4", f"out={tmp_path / 'out'}", setting)
    assert REFUSED[setting] in error and not (tmp_path / "out").exists()
