"""The public contract tests, and what is special to these parts."""

import math

import pytest
import torch
from outside_waves.data import Waves, spectrum
from outside_waves.modality import WaveModality
from outside_waves.outputs import Signals

import anylatent as al


def test_data():
    al.testing.check_data(Waves())


def test_conditioner():
    conditioner = al.get("conditioner", "pitch")()
    al.testing.check_conditioner(conditioner, {"pitch": [1, 4, 2]})
    with pytest.raises(ValueError, match="from 1 to 4"):
        conditioner({"pitch": [5]})


def test_autoencoder():
    items = Waves().train()
    batch = WaveModality().collate([items[i] for i in range(4)])
    al.testing.check_autoencoder(al.get("autoencoder", "waves")(), batch)


def test_modality():
    spec = al.get("autoencoder", "waves")().spec
    al.testing.check_modality(WaveModality(), Waves(), spec)


def test_outputs():
    items = Waves().held_out()
    signals = Signals(torch.stack([items[i]["signal"] for i in range(5)]))
    al.testing.check_outputs(signals)
    autoencoder = al.get("autoencoder", "waves")()
    with torch.no_grad():
        al.testing.check_outputs(autoencoder.decode(autoencoder.spec.blank(2)))


@pytest.mark.parametrize("name", ["image", "video", "shape"])
def test_backbone(name):
    def factory(conditions):
        spec = al.testing.SPECS[name]
        return al.get("backbone", "perceptron")(spec=spec, conditions=conditions)

    al.testing.check_backbone(factory)
    al.testing.check_backbone(factory, al.ConditionSpec(scalars=("pitch",)))


def test_the_unet_runs_over_the_one_axis_of_waves():
    def factory(conditions):
        spec = al.get("autoencoder", "waves")().spec
        return al.get("backbone", "unet")(spec, conditions, channels=8, embedding=16, blocks=1)

    al.testing.check_backbone(factory, al.ConditionSpec(scalars=("pitch",)))


def test_backbone_refuses_variable_lengths():
    with pytest.raises(ValueError, match="choose another"):
        al.get("backbone", "perceptron")(spec=al.testing.SPECS["text"])


def test_spectrum_in_closed_form():
    time = torch.arange(32) / 32
    signal = 0.7 * torch.cos(2 * math.pi * 3 * time + 1)
    wanted = torch.zeros(15, dtype=torch.float64)
    wanted[2] = 0.7
    assert torch.allclose(spectrum(signal[None, None])[0], wanted, atol=1e-6)


def test_figures_of_data_are_perfect():
    data = Waves()
    rows = al.Metrics.of(WaveModality(), data).baselines()
    assert rows["held out"]["purity"] > 1 - 1e-6
    assert rows["held out"]["amplitude"] < 1e-6
    assert rows["held out"]["pitch"] == 1
    assert rows["noise"]["purity"] < 0.5
