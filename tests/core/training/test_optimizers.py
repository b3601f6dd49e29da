"""Optimisers: what goes where, and that a step is what it says."""

import pytest
import torch
from torch import nn

import anylatent as al
from anylatent.core.training import optimizers
from anylatent.core.training.optimizers import AdamW, Muon, MuonAdamW, orthogonal


def test_orthogonal_is_nearly_the_polar_factor():
    torch.manual_seed(0)
    for shape in [(64, 96), (96, 64), (64, 64)]:
        u, s, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
        singular = torch.linalg.svdvals(orthogonal(u @ torch.diag(s) @ v).float())
        # the polynomial drives singular values into a band around one; tiny ones lag behind
        assert ((singular > 0.5) & (singular < 1.3)).float().mean() > 0.95


def steps_one_by_one(x):
    """The same in float64, by its definition."""
    x = x.double() / x.double().norm()
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


@pytest.mark.parametrize("shape", [(64, 64), (64, 127), (64, 128), (128, 64), (48, 432), (192, 48)])
@pytest.mark.parametrize("decades", [0, 2, 4])
def test_steps_at_once_are_the_steps(shape, decades, monkeypatch):
    """Singular values over four decades cost a thousandth, of which bfloat16 costs a tenth."""
    monkeypatch.setattr(optimizers, "has_bfloat16", lambda device: False)
    torch.manual_seed(0)
    u, s, v = torch.linalg.svd(torch.randn(2, *shape), full_matrices=False)
    s = s * torch.logspace(0, -decades, s.shape[-1])
    x = (u * s[:, None]) @ v
    found, wanted = orthogonal(x), torch.stack([steps_one_by_one(each) for each in x])
    assert found.shape == x.shape and found.dtype == torch.float32
    assert (found - wanted).norm() < 1e-3 * wanted.norm()


def test_hidden_weights_go_to_muon_and_the_rest_to_adamw():
    network = nn.Sequential(nn.Conv2d(4, 64, 3), nn.Conv2d(64, 64, 3), nn.Linear(64, 2))
    muon, adamw = MuonAdamW()(network.parameters())
    assert isinstance(muon, Muon) and isinstance(adamw, torch.optim.AdamW)
    assert [p.shape for p in muon.param_groups[0]["params"]] == [(64, 64, 3, 3)]
    count = sum(len(g["params"]) for o in (muon, adamw) for g in o.param_groups)
    assert count == len(list(network.parameters()))
    assert len(MuonAdamW()(nn.Linear(2, 2).parameters())) == 1


def test_a_step_of_muon_has_the_size_of_adams_and_falls_downhill():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(64, 16, 3, 3).to(memory_format=torch.channels_last))
    goal = torch.randn(64, 16, 3, 3)
    optimizer, losses = Muon([weight], lr=0.05), []
    for step in range(200):
        loss = (weight - goal).square().mean()
        optimizer.zero_grad()
        loss.backward()
        before = weight.detach().clone()
        optimizer.step()
        size = (weight - before).square().mean().sqrt()
        if step == 0:
            assert 0.1 * 0.05 < float(size) < 0.4 * 0.05
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def test_every_optimizer_constructs_with_its_defaults():
    for name in al.names("optimizer"):
        assert al.get("optimizer", name)()(nn.Linear(3, 3).parameters())
    assert isinstance(al.get("optimizer", "adamw")(), AdamW)


def test_tables_of_tokens_are_left_to_adam():
    """However large: a batch has only some of the tokens, and Muon would move all of them."""
    from anylatent.core.nn.transformer import CausalTransformer

    network = CausalTransformer(200, width=64, depth=1, heads=2)
    first, second = al.get("optimizer", "muon")()(network.parameters())
    hidden = {id(p) for group in first.param_groups for p in group["params"]}
    assert hidden and not {id(network.embedding.weight), id(network.last.weight)} & hidden
    assert id(network.blocks[0].attention.query.weight) in hidden
