"""Neither a step of training nor one of sampling reads a number from the device of the networks.

To wait for a GPU at each step costs it what it could compute meanwhile. Everything is run on
tensors without numbers, of the device `meta`, so that whatever would read one (`item`, `nonzero`,
`.cpu()`, a mask as an index) is an error.
"""

from contextlib import nullcontext

import pytest
import torch

import anylatent as al
from anylatent.core.generators import Sampler
from anylatent.core.modality import move
from anylatent.core.registry import build
from anylatent.core.runs import Context, System
from anylatent.core.training.average import Average
from anylatent.core.training.optimizers import MuonAdamW
from anylatent.core.training.stages.diffusion import DiffusionStage
from anylatent.core.training.stages.joint import JointStage
from tests.modalities.molecule.test_cli import TINY as MOLECULES
from tests.modalities.text.test_cli import TINY as TEXTS
from tests.modalities.video.test_cli import FIRST_FRAME as VIDEOS

WAIT = {
    "adaptive_sde": "whether a sample's step is good enough decides what is done next",
    "dopri5": "the same",
    "paradigms": "how far its window moves",
}
SPECS = al.testing.SPECS
BACKBONES = {
    "unet": ("image", {"channels": 16, "blocks": 1}),
    "dit": ("image", {"width": 32, "depth": 1, "heads": 2}),
    "transformer": ("text", {"width": 32, "depth": 1, "heads": 2}),
    "egnn": ("molecule", {"width": 16, "edge": 8, "depth": 1}),
}
"""All but the tensor-product network, which lists who is near to whom."""


@pytest.fixture(autouse=True)
def device(monkeypatch):
    """Of tensors without numbers, where autocast, which knows no such device, does nothing."""
    usual = torch.autocast

    def autocast(device_type, *args, **settings):
        return nullcontext() if device_type == "meta" else usual(device_type, *args, **settings)

    monkeypatch.setattr(torch, "autocast", autocast)
    return torch.device("meta")


def blank(spec, batch=3):
    variable = any(field.variable for field in spec.fields.values())
    return spec.blank(batch, torch.tensor([4, 6, 5]) if variable else None)


def solved(denoise, solver, spec):
    noise, schedule = al.Noise.of(0, 3), al.get("schedule", "vp")()
    x = noise.like(blank(spec)).to("meta")
    times = al.get("grid", "log_snr")()(schedule, 4)
    with torch.no_grad():
        return al.solve(solver, denoise, schedule, x, times, noise)


def test_what_is_run_here_can_not_read(device):
    x = torch.ones(3, device=device)
    for read in (lambda: x.sum().item(), lambda: x.cpu(), lambda: x[x > 0], lambda: bool(x[0])):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read()


def denoiser(name):
    key, settings = BACKBONES[name]
    network = al.get("backbone", name)(spec=SPECS[key], **settings)
    made = al.Preconditioned(
        network, al.get("schedule", "vp")(), al.get("prediction", "velocity")()
    )
    return made.to("meta"), SPECS[key]


@pytest.mark.parametrize("solver", al.names("solver"))
def test_steps_of_sampling(solver):
    model, spec = denoiser("transformer")
    if solver not in WAIT:
        assert solved(model.bind(None), al.get("solver", solver)(), spec).device.type == "meta"
        return
    with pytest.raises(NotImplementedError, match="meta tensor"):
        solved(model.bind(None), al.get("solver", solver)(), spec)


@pytest.mark.parametrize("name", BACKBONES)
def test_networks(name):
    model, spec = denoiser(name)
    assert solved(model.bind(None), al.get("solver", "heun")(), spec).device.type == "meta"


GUIDANCE = {
    "classifier_free": {"scale": 3.0, "rescale": 0.5},
    "projected": {"scale": 3.0},
}


def system_of(run):
    config = al.load(run, device="cpu").config
    return System(config.model, config.facts, training=True), config


@pytest.mark.parametrize("name", GUIDANCE)
def test_guidance(name, digits):
    model, _ = system_of(digits)
    cond = model.condition({"digit": [1, 2, 3]})
    model = model.to("meta").eval()
    guide = Context(known=["digit"]).guidance({"name": name, **GUIDANCE[name]})
    grid, solver = al.get("grid", "log_snr")(), al.get("solver", "dpmpp_2m")()
    start = model.autoencoder.spec.blank(3).to("meta")
    sampler = Sampler(solver, grid, 4, guide, None)
    with torch.no_grad():
        found = model.generator.sample(start, cond.to("meta"), sampler, al.Noise.of(0, 3))
    assert found.device.type == "meta"


@pytest.fixture
def run(request, trained_once, digits):
    if request.param == "image":
        return digits
    settings = {
        "molecule": ("molecules", MOLECULES),
        "text": ("cdcd", [*TEXTS, MIXED]),
        "video": ("video_first", VIDEOS),
    }
    return trained_once(*settings[request.param])


MIXED = "masking@objective.masking=mixed"


@pytest.mark.parametrize("run", ["image", "molecule", "text", "video"], indirect=True)
@pytest.mark.parametrize("kind", [DiffusionStage, JointStage])
def test_a_step_of_training(run, kind, monkeypatch):
    """The loss, its gradient and their norm, both optimisers and the average of the weights."""
    system, config = system_of(run)
    stage = object.__new__(kind)
    stage.system, stage.learner, stage.label = system, None, "diffusion"
    stage.settings = kind.settings_type(drop=0.1)
    batch, plain = batch_of(system, config, kind), torch.optim.AdamW
    monkeypatch.setattr(  # the fused one knows no such device either
        torch.optim, "AdamW", lambda p, fused=None, **told: plain(p, foreach=True, **told)
    )
    system.to("meta")
    networks = torch.nn.ModuleDict(stage.networks())
    parameters = [p for p in networks.parameters() if p.requires_grad]
    optimisers, average = MuonAdamW()(parameters), Average(networks, 0.9)

    def descend(name, loss):
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser in optimisers:
            optimiser.step()

    for number in range(2):
        terms = stage.step(batch, al.Noise.of((0, number), 3), number, descend)
        average.update(number)
        assert all(value.device.type == "meta" for value in terms.values())


def batch_of(system, config, kind):
    """What the loader gives, of lengths that differ, moved."""
    data = build("data", config.data).train()
    items = [data[i * len(data) // 3] for i in range(3)]
    if kind is JointStage:
        stage = object.__new__(kind)
        stage.system = system
        return move(stage.collate(items), torch.device("meta"))
    batch = system.modality.collate(items)
    with torch.no_grad():
        posterior, cond = system.autoencoder.encode(batch), system.read(batch)
    return posterior.to("meta"), None if cond is None else cond.to("meta")
