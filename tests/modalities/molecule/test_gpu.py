"""Molecules on a GPU: the same latents, losses, samples and figures as on the CPU."""

import pytest
import torch

import anylatent as al
from anylatent.core.likelihood.flow import log_likelihood
from anylatent.modalities.molecule.autoencoder import GeoLDM
from anylatent.modalities.molecule.backbone import EGNNBackbone

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
SIZES = (9, 4, 18, 13)


def batch(device):
    mask = torch.arange(max(SIZES)) < torch.tensor(SIZES)[:, None]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(SIZES), max(SIZES), 3, generator=generator) * mask[..., None]
    element = torch.randint(0, 5, mask.shape, generator=generator) * mask
    columns = {"x": x, "mask": mask, "element": element, "charge": torch.zeros_like(element)}
    return {name: value.to(device) for name, value in columns.items()}


def on_both(function):
    """What a function of a device returns on the CPU and on the GPU, the latter moved back."""
    return function(torch.device("cpu")), function(torch.device("cuda"))


def test_the_autoencoder():
    def terms(device):
        torch.manual_seed(0)
        autoencoder = GeoLDM().to(device)
        found, _ = autoencoder.loss(batch(device), al.Noise.of(0, len(SIZES)), 0)
        return {name: term.detach().cpu() for name, term in found.items()}

    cpu, gpu = on_both(terms)
    for name in cpu:
        assert torch.allclose(cpu[name], gpu[name], rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("pairs", ("dense", "list"))
def test_a_chain_of_samples(pairs):
    schedule = al.get("schedule", "edm")()

    def sample(device):
        torch.manual_seed(0)
        backbone = EGNNBackbone(width=32, edge=16, depth=2, pairs=pairs)
        for parameter in backbone.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        denoiser = al.Preconditioned(backbone.to(device), schedule, al.get("prediction", "edm")())
        blank = backbone.spec.blank(len(SIZES), SIZES, device=device)
        times, noise = al.get("grid", "log_snr")()(schedule, 8), al.Noise.of(0, len(SIZES))
        start = float(schedule.sigma(times[0])) * noise.like(blank)
        with torch.no_grad():
            solver = al.get("solver", "heun")(churn=40.0)
            return al.solve(solver, denoiser, schedule, start, times, noise).to("cpu")

    cpu, gpu = on_both(sample)
    for name in cpu.parts:
        assert torch.allclose(cpu[name], gpu[name], atol=1e-3), name


def test_a_training_step_in_bfloat16_has_finite_gradients():
    backbone = EGNNBackbone(width=64, edge=48, depth=3).cuda()
    blank = backbone.spec.blank(len(SIZES), SIZES, device="cuda")
    x = al.Noise.of(0, len(SIZES)).like(blank)
    with torch.autocast("cuda", torch.bfloat16):
        out = backbone(x, torch.zeros(len(SIZES), device="cuda"))
    out.mse(x).mean().backward()
    assert all(bool(p.grad.isfinite().all()) for p in backbone.parameters() if p.grad is not None)


def test_likelihoods():
    schedule = al.get("schedule", "edm")()
    denoise = al.testing.GaussianDenoiser(schedule, 0.0, 0.7)
    spec = al.testing.SPECS["molecule"]

    def log_p(device):
        x = al.Noise.of(1, len(SIZES)).like(spec.blank(len(SIZES), SIZES, device=device))
        found = log_likelihood(denoise, schedule, x, noise=al.Noise.of(0, len(SIZES)), steps=12)
        return found.log_p.cpu()

    cpu, gpu = on_both(log_p)
    assert torch.allclose(cpu, gpu, rtol=1e-4)
