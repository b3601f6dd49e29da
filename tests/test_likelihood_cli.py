"""`anylatent benchmark` measures likelihoods as it is told, on real digits with tiny networks."""

import json
import math

import pytest

import anylatent as al
from tests.cli import QUICK, TINY, steps
from tests.test_classify_cli import asked


@pytest.fixture(scope="module")
def runs(digits, trained_once):
    """Diffusion of latents, and of pictures themselves, under the labels of digits."""
    pixels = [s for s in TINY if not s.startswith("autoencoder.")]
    pixels += ["autoencoder=identity", "backbone.multipliers=[1,1]"]
    return {
        "latent": digits,
        "pixels": trained_once("labelled_pixels", [*pixels, *steps(1, 20), *QUICK]),
    }


@pytest.fixture
def measured(runs, cli, tmp_path, monkeypatch):
    """The figures of a benchmark, and its table."""
    monkeypatch.setattr(al.Metrics, "of", asked)

    def run(name, *extra):
        arguments = ["n=2", "steps=1", f"out={tmp_path}", *extra]
        code, out, err = cli("benchmark", f"run={runs[name]}", *arguments)
        assert code == 0, err
        return json.loads((tmp_path / "benchmark.json").read_text())["other"], out

    return run


FIGURES = {"latent_nll_nats", "latent_bits_per_dimension", "bound_nats"}
FIGURES |= {f"bound_{end}" for end in ("nats_per_dimension", "bits_per_dimension")}


@pytest.mark.parametrize("name", ("latent", "pixels"))
@pytest.mark.parametrize("measure", (["elbo", "draws=8"], ["flow", "steps=6"]))
def test_both_measures(measured, name, measure):
    how = [f"likelihood={measure[0]}", f"likelihood.{measure[1]}", "likelihood.samples=8"]
    found, out = measured(name, *how)
    assert set(found) >= FIGURES
    bits = found["bound_nats"] / 256 / math.log(2)
    assert found["bound_bits_per_dimension"] == pytest.approx(bits)
    assert 0 < bits < 40 and found["bound_bits_per_dimension_error"] > 0
    assert "bound_bits_per_dimension" in out


def test_a_number_is_how_many_samples(measured):
    """The short form; 0 for none."""
    none, _ = measured("latent", "likelihood=0")
    assert not FIGURES & set(none)
    some, _ = measured("latent", "likelihood=4")
    same, _ = measured("latent", "likelihood=elbo", "likelihood.samples=4")
    assert some["bound_nats"] == same["bound_nats"]


def test_guided_or_not(measured):
    """Guided as samples are, where it is asked for."""
    short = ["likelihood=4"]
    plain, _ = measured("latent", *short, "guidance.scale=50")
    guided, out = measured("latent", *short, "guidance.scale=50", "likelihood.guided=true")
    same, _ = measured("latent", *short, "guidance.scale=1", "likelihood.guided=true")
    assert guided["bound_nats"] != plain["bound_nats"]
    assert same["bound_nats"] == pytest.approx(plain["bound_nats"])
    assert "guidance classifier_free 50" in out


def test_mistakes_are_messages(runs, fails):
    def message(*arguments):
        return fails("benchmark", f"run={runs['latent']}", "n=2", *arguments)

    said = message("likelihood=exact")
    assert "exact" in said and "elbo" in said and "flow" in said
    assert "draws" in message("likelihood=flow", "likelihood.draws=3")
