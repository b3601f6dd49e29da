"""The residual perceptron for vectors: at its start, what it learns, and what it takes."""

import pytest
import torch

import anylatent as al
from anylatent.core.latents import token_condition

MLP = al.get("backbone", "mlp")
SPEC = al.LatentSpec({"z": al.Field((3,))})
SETTINGS = {"width": 32, "depth": 2}


def made(**given):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MLP(**{"spec": SPEC, **SETTINGS, **given})


def drawn(batch=5, spec=SPEC):
    return al.Noise.of(0, batch).like(spec.blank(batch))


def woken(backbone, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return backbone.eval()


# ---- at the start -----------------------------------------------------------------------------
def test_the_output_is_zero_and_blocks_are_the_identity():
    conditions = al.ConditionSpec(classes={"kind": 2}, tokens={"words": 4})
    backbone = made(conditions=conditions)
    assert not bool(backbone(drawn(), torch.zeros(5))["z"].any())
    x, embedding = torch.randn(5, 32), torch.randn(5, 32)
    known = backbone.condition(None, x)
    for block in backbone.blocks:
        assert torch.equal(block(x, embedding, known), x)
    assert torch.allclose(backbone.norm(x, embedding), torch.nn.LayerNorm(32, eps=1e-6)(x))


def test_contracts_with_other_conditions_and_features():
    conditions = al.ConditionSpec(scalars=("size",))
    fourier = al.get("features", "fourier")()
    factory = lambda conditions: made(conditions=conditions, features=fourier)  # noqa: E731
    al.testing.check_backbone(factory, conditions)


# ---- what it learns ---------------------------------------------------------------------------
def test_it_learns_the_exact_denoiser_of_a_correlated_gaussian():
    """E[x0 | x_t] = m + α S (α² S + σ² 1)⁻¹ (x_t − α m): no entry alone tells it."""
    mean = torch.tensor([0.5, -1.0, 0.0])
    root = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.3, 0.0], [-0.5, 0.5, 0.2]])
    cov = root @ root.T
    log_snr = torch.tensor([2.0, 0.0, -2.0])
    alpha, sigma = log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
    backbone = made(width=48, depth=2)
    optimiser = torch.optim.Adam(backbone.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)

    def noisy(count):
        level = torch.arange(count) % 3
        x0 = mean + torch.randn(count, 3, generator=generator) @ root.T
        a, s = alpha[level, None], sigma[level, None]
        return level, x0, a * x0 + s * torch.randn(count, 3, generator=generator)

    for step in range(300):
        level, x0, x = noisy(96)
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - step / 300)
        found = backbone(SPEC.wrap({"z": x}), -log_snr[level] / 4)["z"]
        optimiser.zero_grad()
        (found - x0).square().mean().backward()
        optimiser.step()
    level, _, x = noisy(900)
    rates = list(zip(alpha, sigma, strict=True))
    gains = [a * cov @ torch.linalg.inv(a**2 * cov + s**2 * torch.eye(3)) for a, s in rates]
    gain = torch.stack(gains)[level]
    wanted = mean + (gain @ (x - alpha[level, None] * mean)[..., None])[..., 0]
    with torch.no_grad():
        found = backbone(SPEC.wrap({"z": x}), -log_snr[level] / 4)["z"]
    errors = []
    for k in range(3):
        rows = level == k
        error = (found - wanted)[rows].square().mean() / wanted[rows].var(0).mean()
        errors.append(float(error))
    assert max(errors) < 0.02, errors


# ---- what it takes ----------------------------------------------------------------------------
def test_tokens_are_told_apart_beyond_their_mean():
    """Two texts of one mean, (a, a) + (b, b) and (a + b, a + b) / 2 twice: attention tells them."""
    backbone = woken(made(conditions=al.ConditionSpec(tokens={"words": 4})))
    a, b = torch.tensor([1.0, 0, 0, 2]), torch.tensor([0, -1.0, 3, 0])
    mask = torch.ones(1, 2, dtype=torch.bool)
    texts = [torch.stack([a, b]), torch.stack([(a + b) / 2] * 2)]
    conds = [al.Condition({"words": token_condition(text[None], mask)}) for text in texts]
    found = [backbone(drawn(1), torch.zeros(1), cond)["z"] for cond in conds]
    assert float((found[0] - found[1]).detach().abs().max()) > 1e-3
    turned = al.Condition({"words": token_condition(texts[0].flip(0)[None], mask)})
    assert torch.allclose(backbone(drawn(1), torch.zeros(1), turned)["z"], found[0], atol=1e-5)


def test_a_map_is_a_vector_beside_the_input():
    backbone = woken(made(conditions=al.ConditionSpec(maps={"view": 2})))
    assert backbone.first.in_features == 5
    x, level = drawn(2), torch.zeros(2)
    view = torch.tensor([[1.0, 2.0], [0.0, -3.0]])
    plain = made(spec=al.LatentSpec({"z": al.Field((5,))}), output=SPEC)
    state = {name: value for name, value in backbone.state_dict().items() if "nulls" not in name}
    plain.load_state_dict(state)
    both = al.LatentSpec({"z": al.Field((5,))}).wrap({"z": torch.cat([x["z"], view], 1)})
    found = backbone(x, level, al.Condition({"view": view}))["z"]
    assert torch.allclose(found, plain.eval()(both, level)["z"], atol=1e-6)


def test_other_outputs_and_what_is_refused():
    twice = al.LatentSpec({"z": al.Field((6,))})
    out = woken(made(output=twice))(drawn(), torch.zeros(5))
    assert out.spec == twice and out["z"].shape == (5, 6)
    with pytest.raises(ValueError, match="one field .D,., got .*another backbone"):
        made(spec=al.testing.SPECS["text"])
    with pytest.raises(ValueError, match="one field"):
        made(spec=al.LatentSpec({"a": al.Field((3,)), "b": al.Field((3,))}))
    with pytest.raises(ValueError, match="has its field 'z'"):
        made(output=al.LatentSpec({"y": al.Field((3,))}))
    with pytest.raises(ValueError, match=r"one noise level per sample, shape \(5,\), got \(5, 3\)"):
        made()(drawn(), torch.zeros(5, 3))


def test_it_compiles_whole():
    backbone = woken(made(conditions=al.ConditionSpec(classes={"kind": 2})))
    cond = al.Condition({"kind": torch.tensor([0, 1, 1, 0, 1])})
    compiled = torch.compile(backbone, fullgraph=True, backend="eager")
    x = drawn()
    found = compiled(x, torch.ones(5), cond)["z"]
    assert torch.allclose(found, backbone(x, torch.ones(5), cond)["z"], atol=1e-6)
