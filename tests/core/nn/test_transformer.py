"""Rotary positions, the block that backbones share, the causal transformer and its cache."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from anylatent.core.nn.attention import Attention, attend
from anylatent.core.nn.rotary import head_size, rotate, rotation
from anylatent.core.nn.transformer import Block, CausalTransformer


@pytest.fixture(autouse=True)
def seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def awake(module):
    """The module with every parameter moved, so that no branch is silent."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter) / math.sqrt(parameter.shape[-1]))
    return module.eval()


def language(context=None, vocabulary=7, **sizes):
    sizes = {"width": 16, "depth": 2, "heads": 2} | sizes
    return awake(CausalTransformer(vocabulary, context=context, **sizes))


# ---- rotary positions ------------------------------------------------------------------------
def test_a_pair_turns_by_its_position_times_its_frequency():
    like = torch.zeros((), dtype=torch.float64)
    x = torch.tensor([[1.0, 0.0, 0.0, 2.0]], dtype=torch.float64).expand(5, 4)
    turned = rotate(x, rotation(5, 4, like, base=100.0))
    p = torch.arange(5, dtype=torch.float64)
    slow = p * 100.0 ** (-2 / 4)
    wanted = torch.stack((p.cos(), p.sin(), -2 * slow.sin(), 2 * slow.cos()), -1)
    assert torch.allclose(turned, wanted, atol=1e-12)
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-12)


def test_products_depend_on_the_distance_alone():
    q, k = torch.randn(2, 1, 8, dtype=torch.float64)
    turn = rotation(30, 8, q)
    scores = rotate(q.expand(30, 8), turn) @ rotate(k.expand(30, 8), turn).T
    for offset in (-7, 0, 3):
        along = scores.diagonal(offset)
        assert torch.allclose(along, along[:1].expand_as(along), atol=1e-12)
    assert scores[0].std() > 0.01


def test_angles_are_exact_to_float32_whatever_the_precision_of_the_network():
    half = torch.randn(1, 500, 8).bfloat16()
    exact = rotation(500, 8, torch.zeros((), dtype=torch.float64))
    low = rotation(500, 8, half)
    assert low.dtype == torch.float32 and float((low - exact).abs().max()) < 1e-4
    turned = rotate(half, low)
    assert turned.dtype == torch.bfloat16
    assert torch.allclose(turned.double(), rotate(half.double(), exact), atol=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_turning_compiles_whole(dtype):
    x = torch.randn(2, 5, 8, dtype=dtype)
    turn = rotation(5, 8, x)
    compiled = torch.compile(rotate, fullgraph=True, backend="eager")
    found, wanted = compiled(x, turn), rotate(x, turn)
    assert found.dtype == dtype and torch.allclose(found, wanted, rtol=0, atol=1e-6)
    own = torch.compile(rotation, fullgraph=True, backend="eager")(5, 8, x)
    assert own.dtype == turn.dtype and torch.allclose(own, turn, rtol=0, atol=1e-6)


def test_heads_of_odd_size_are_an_error():
    assert head_size(12, 3) == 4
    with pytest.raises(ValueError, match="multiple of 6"):
        head_size(15, 3)
    with pytest.raises(ValueError, match="15 does not split into 3 heads"):
        CausalTransformer(5, width=15, heads=3)


# ---- attention -------------------------------------------------------------------------------
@pytest.mark.parametrize("masked", [False, True])
def test_causal_attention_equals_its_formula(masked):
    q, k, v = torch.randn(3, 2, 3, 6, 4, dtype=torch.float64)
    mask = torch.tensor(
        [[True, True, False, True, False, True], [False, False, True, False, True, True]]
    )
    out = attend(q, k, v, mask if masked else None, causal=True)
    seen = torch.ones(6, 6, dtype=torch.bool).tril().expand(2, 6, 6)
    seen = seen & mask[:, None] if masked else seen
    scores = (q @ k.transpose(-1, -2) / 2).masked_fill(~seen[:, None], -math.inf)
    wanted = scores.softmax(-1).nan_to_num() @ v
    assert torch.allclose(out, wanted, atol=1e-12)
    if masked:  # the first two queries of the second sample see nothing
        assert (out[1, :, :2] == 0).all() and out.isfinite().all()


def test_attention_with_positions_equals_its_formula():
    attention = Attention(8, 2, normed=True, zeroed=False).double()
    x, mask = torch.randn(2, 5, 8, dtype=torch.float64), torch.arange(5) < torch.tensor([[5], [3]])
    turn = rotation(5, 4, x)
    q = attention.norm_query(attention.query(x).reshape(2, 5, 2, 4).transpose(1, 2))
    k, v = attention.keys_values(x).reshape(2, 5, 2, 2, 4).permute(2, 0, 3, 1, 4)
    scores = rotate(q, turn) @ rotate(attention.norm_key(k), turn).transpose(-1, -2) / 2
    weights = scores.masked_fill(~mask[:, None, None], -math.inf).softmax(-1)
    wanted = attention.output((weights @ v).transpose(1, 2).flatten(2))
    assert torch.allclose(attention(x, mask=mask, turn=turn), wanted, atol=1e-12)


def test_without_positions_tokens_have_no_order_and_with_them_they_do():
    block, x = awake(Block(16, 2, steered=False)), torch.randn(2, 5, 16)
    turn = rotation(5, 8, x)
    assert torch.allclose(block(x.flip(1)).flip(1), block(x), atol=1e-5)
    assert not torch.allclose(block(x.flip(1), turn=turn).flip(1), block(x, turn=turn), atol=1e-2)


# ---- blocks ----------------------------------------------------------------------------------
@pytest.mark.parametrize("steered", [True, False])
@pytest.mark.parametrize("context", [None, 6])
def test_blocks_start_as_the_identity_and_every_parameter_learns(steered, context):
    block = Block(16, 4, context=context, steered=steered)
    x, states = torch.randn(3, 5, 16), None if context is None else torch.randn(3, 2, 6)
    embedding = torch.randn(3, 16) if steered else None
    assert torch.equal(block(x, embedding, context=states), x)
    awake(block)
    block(x, embedding, context=states).square().mean().backward()
    assert not [name for name, p in block.named_parameters() if not p.grad.any()]


def test_a_block_refuses_what_it_was_not_built_for():
    x, vector = torch.randn(2, 3, 8), torch.randn(2, 8)
    with pytest.raises(ValueError, match="steered"):
        Block(8, 2)(x)
    with pytest.raises(ValueError, match="steered"):
        Block(8, 2, steered=False)(x, vector)
    with pytest.raises(ValueError, match="context"):
        Block(8, 2)(x, vector, context=x)
    with pytest.raises(ValueError, match="context"):
        Block(8, 2, context=8)(x, vector)
    with pytest.raises(ValueError, match="context"):
        CausalTransformer(5, width=8, heads=2, context=4).begin(2, 3)


# ---- the causal transformer ------------------------------------------------------------------
def test_logits_see_the_tokens_up_to_theirs_and_no_later_one():
    model, tokens = language().double(), torch.randint(7, (1, 9))
    plain = model(tokens)
    for j in range(9):
        changed = tokens.clone()
        changed[0, j] = (tokens[0, j] + 1) % 7
        moved = (model(changed) - plain).abs().amax(-1)[0]
        assert (moved[:j] < 1e-12).all() and (moved[j:] > 1e-6).all(), j


@pytest.mark.parametrize("context", [None, 5])
def test_neither_padding_nor_neighbours_change_a_sequence(context):
    model, tokens = language(context), torch.randint(7, (3, 8))
    states = None if context is None else torch.randn(3, 4, 5)
    lengths = torch.tensor([8, 3, 5])
    mask = torch.arange(8) < lengths[:, None]
    together = model(tokens, mask, states)
    longer = torch.nn.functional.pad(tokens, (0, 5))
    padded = model(longer, torch.nn.functional.pad(mask, (0, 5)), states)
    for i, n in enumerate(lengths.tolist()):
        own = None if states is None else states[i : i + 1]
        lonely = model(tokens[i : i + 1, :n], None, own)[0]
        assert torch.allclose(together[i, :n], lonely, atol=1e-5)
        assert torch.allclose(padded[i, :n], lonely, atol=1e-5)


def test_positions_are_relative():
    model, tokens = language().double(), torch.randint(7, (2, 6))
    shifted = torch.nn.functional.pad(tokens, (4, 0))
    mask = (torch.arange(10) >= 4).expand(2, 10)
    assert torch.allclose(model(shifted, mask)[:, 4:], model(tokens), atol=1e-10)


def test_masked_context_is_not_seen():
    model, tokens = language(context=5), torch.randint(7, (2, 6))
    states, mask = torch.randn(2, 4, 5), torch.arange(4) < torch.tensor([[4], [2]])
    spoiled = states.masked_fill(~mask[..., None], 1e3)
    plain = model(tokens, None, states, mask)
    assert torch.allclose(plain, model(tokens, None, spoiled, mask), atol=1e-6)
    assert torch.allclose(plain[1:], model(tokens[1:], None, states[1:, :2]), atol=1e-5)
    assert not torch.allclose(plain[1:], model(tokens[1:], None, states[1:]), atol=1e-3)


@pytest.mark.parametrize("context", [None, 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_decoding_step_by_step_equals_the_full_forward(context, dtype, tolerance):
    model, tokens = language(context).to(dtype), torch.randint(7, (3, 11))
    states, mask = None, None
    if context is not None:
        states = torch.randn(3, 4, 5, dtype=dtype)
        mask = torch.arange(4) < torch.tensor([[4], [2], [0]])
    full = model(tokens, None, states, mask).detach()
    cache = model.begin(3, 11, states, mask)
    stepped = torch.stack([model.step(column, cache) for column in tokens.T], 1)
    assert float((stepped - full).abs().max()) < tolerance
    lonely = model.begin(1, 20, *(None if x is None else x[1:2] for x in (states, mask)))
    alone = torch.stack([model.step(column, lonely) for column in tokens[1:2].T], 1)
    assert float((alone[0] - stepped[1]).abs().max()) < tolerance


def test_under_bfloat16_steps_stay_near_the_full_forward():
    model, tokens = language(context=5), torch.randint(7, (2, 6))
    states = torch.randn(2, 4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        full, cache = model(tokens, None, states), model.begin(2, 6, states)
        stepped = torch.stack([model.step(column, cache) for column in tokens.T], 1)
    exact, full = model(tokens, None, states).detach(), full.detach()
    assert float((stepped - full).abs().max()) < 0.05 * float(exact.abs().max())
    assert float((full - exact).abs().max()) < 0.05 * float(exact.abs().max())


def test_a_cache_says_what_it_was_begun_for():
    model = language()
    cache = model.begin(2, 1)
    with pytest.raises(ValueError, match="each of 2"):
        model.step(torch.tensor([1]), cache)
    model.step(torch.tensor([1, 2]), cache)
    with pytest.raises(ValueError, match="begun for 1 tokens"):
        model.step(torch.tensor([1, 2]), cache)
    with pytest.raises(ValueError, match="at least 2"):
        CausalTransformer(1)


def test_it_starts_uniform_and_learns_to_copy_what_it_has_seen():
    """Texts abcabc…: from the fourth token on the loss can be zero, before it is log V."""
    model = CausalTransformer(8, width=32, depth=2, heads=2)
    period = torch.randint(8, (256, 4))
    tokens = period.repeat(1, 3)
    start = cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    assert abs(float(start.detach()) - math.log(8)) < 0.05
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        batch = torch.randint(8, (64, 4)).repeat(1, 3)
        logits = model(batch[:, :-1])
        optimiser.zero_grad()
        cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
        optimiser.step()
    logits = model(tokens[:, :-1]).detach()
    each = cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    assert float(each[:, 3:].mean()) < 0.3
    assert abs(float(each[:, :3].mean()) - math.log(8)) < 0.3
