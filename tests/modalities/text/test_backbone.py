"""The bidirectional transformer of sequences."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import anylatent as al
from anylatent.core.latents.condition import Condition, ConditionSpec, token_condition
from anylatent.core.latents.latent import Latent
from anylatent.core.latents.noise import Noise
from anylatent.core.latents.spec import Field, LatentSpec
from anylatent.core.testing.examples import distance, spoil
from anylatent.modalities.text.backbone import Transformer, _distances

SMALL = {"width": 32, "depth": 2, "heads": 2}
SPEC = LatentSpec({"z": Field((None, 6))})
FIXED = LatentSpec({"z": Field((5, 6))})
LOGITS = LatentSpec({"z": Field((None, 11))})
CONDITIONS = ConditionSpec(
    classes={"kind": 4}, tokens={"words": 5}, maps={"given": 1, "estimate": 6}, scalars=["gap"]
)
LENGTHS = [7, 3, 5]
C_NOISE = torch.tensor([-2.0, 0.0, 3.0])


def awake(*arguments, **settings):
    """A backbone none of whose branches is silent."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        backbone = Transformer(*arguments, **(SMALL | settings)).eval()
        for parameter in backbone.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return backbone


def noisy(spec=SPEC, padded=None, lengths=LENGTHS):
    blank = spec.blank(len(lengths), lengths if spec is SPEC else None)
    x = Noise.of(0, blank.batch).like(blank)
    return x if padded is None else stretch(x, padded)


def stretch(x, padded):
    """The same latent with more padding."""
    more = padded - x["z"].shape[1]
    z = torch.nn.functional.pad(x["z"], (0, 0, 0, more))
    return Latent({"z": z}, {"z": torch.nn.functional.pad(x.masks["z"], (0, more))}, x.spec)


def condition(padded=7):
    generator = torch.Generator().manual_seed(1)
    words = torch.randn(3, 4, 5, generator=generator)
    maps = [torch.randn(3, 7, n, generator=generator) for n in (1, 6)]
    maps = [torch.nn.functional.pad(x, (0, 0, 0, padded - 7), value=torch.nan) for x in maps]
    return Condition(
        {
            "kind": torch.tensor([0, 3, 1]),
            "words": token_condition(words, torch.arange(4) < torch.tensor([[4], [1], [2]])),
            "given": maps[0],
            "estimate": maps[1],
            "gap": torch.tensor([0.3, -1.0, 2.0]),
        }
    )


@pytest.mark.parametrize("spec", [SPEC, FIXED])
def test_contract(spec):
    conditions = ConditionSpec(classes={"kind": 3}, tokens={"words": 5}, scalars=["gap"])
    al.testing.check_backbone(lambda conditions: Transformer(spec, conditions, **SMALL), conditions)


@pytest.mark.parametrize("padded", [8, 13, 40])
def test_padding_to_any_length_changes_nothing(padded):
    backbone = awake(SPEC, CONDITIONS, LOGITS)
    with torch.no_grad():
        plain = backbone(noisy(), C_NOISE, condition())["z"]
        longer = backbone(spoil(noisy(padded=padded), torch.nan), C_NOISE, condition(padded))["z"]
    assert float(plain.abs().max()) > 0.3
    assert float((longer[:, :7] - plain).abs().max()) < 1e-6 * float(plain.abs().max())
    assert (longer[:, 7:] == 0).all() and (plain[1, 3:] == 0).all()


def test_logits_are_a_latent_of_the_output_spec():
    backbone = Transformer(SPEC, output=LOGITS, **SMALL)
    found = backbone(noisy(), C_NOISE)
    assert found.spec == LOGITS and found["z"].shape == (3, 7, 11)
    assert torch.equal(found.masks["z"], noisy().masks["z"])
    assert (found["z"] == 0).all()  # the last layer starts at zero
    fixed = LatentSpec({"z": Field((5, 3))})
    assert Transformer(FIXED, output=fixed, **SMALL)(noisy(FIXED), C_NOISE)["z"].shape == (3, 5, 3)


@pytest.mark.parametrize("name", CONDITIONS.names)
def test_every_condition_reaches_the_output_of_its_own_sample_alone(name):
    backbone, cond = awake(SPEC, CONDITIONS), condition()
    keep = {name: torch.tensor([True, False, True])}
    with torch.no_grad():
        plain = backbone(noisy(), C_NOISE, cond)["z"]
        less = backbone(noisy(), C_NOISE, Condition(cond.values, keep))["z"]
    assert torch.equal(less[0], plain[0]) and torch.equal(less[2], plain[2])
    assert float((less[1] - plain[1]).abs().max()) > 1e-3


def test_every_entry_sees_every_other():
    backbone, x = awake(SPEC), noisy()
    for i in range(7):
        moved = x.replace(z=x["z"] + torch.nn.functional.one_hot(torch.tensor(i), 7)[:, None])
        with torch.no_grad():
            change = backbone(moved, C_NOISE)["z"] - backbone(x, C_NOISE)["z"]
        assert (change[0].abs().amax(-1) > 1e-5).all()
        assert (change[1].abs().amax(-1)[:3] > 1e-5).all() == (i < 3)


def test_rotary_positions_alone_tell_the_order():
    backbone, x = awake(SPEC), noisy(lengths=[7, 7, 7])
    with torch.no_grad():
        backbone.place.weight.zero_()
        there = backbone(x.map(lambda z: z.flip(1)), C_NOISE)["z"].flip(1)
        assert float((there - backbone(x, C_NOISE)["z"]).abs().max()) > 1e-2


def test_entries_know_how_far_the_ends_of_their_own_sequence_are():
    x = noisy()
    found = _distances(x["z"], x.masks["z"])
    assert found[1, :3].tolist() == [[0, 2], [1, 1], [2, 0]]
    assert found[0].tolist() == [[i, 6 - i] for i in range(7)]
    assert _distances(x["z"][:1, :4], None)[0].tolist() == [[0, 3], [1, 2], [2, 1], [3, 0]]
    backbone = awake(SPEC, depth=0)  # no attention: the only way to learn of the length
    same = [SPEC.blank(1, [n]).map(lambda z: z + 1) for n in (4, 6)]
    with torch.no_grad():
        short, long = (backbone(x, C_NOISE[:1])["z"][0] for x in same)
    assert float((short[0] - long[0]).abs().max()) > 1e-2


class NoWaiting(TorchDispatchMode):
    """Refuses the operations that ask a device for a value."""

    waits = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = function.overloadpacket.__name__
        picked = arguments[1] if name in ("index", "index_put", "index_put_") else ()
        masked = any(index is not None and index.dtype == torch.bool for index in picked)
        if masked or name.startswith(self.waits):
            raise AssertionError(f"{name} makes the host wait")
        return function(*arguments, **(keywords or {}))


def test_nothing_waits_for_the_device():
    backbone, x, cond = awake(SPEC, CONDITIONS, LOGITS), noisy(), condition()
    with NoWaiting():
        backbone(x, C_NOISE, cond)["z"].square().sum().backward()
        for wait in (lambda z: float(z.sum()), lambda z: z[z > 0], torch.nonzero):
            with pytest.raises(AssertionError, match="wait"):
                wait(x["z"])


def test_under_bfloat16_the_output_is_near_and_float32():
    backbone = awake(SPEC, CONDITIONS)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = backbone(noisy(), C_NOISE, condition())
    with torch.no_grad():
        high = backbone(noisy(), C_NOISE, condition())
    assert low.dtype == torch.float32
    assert 0 < distance(low, high) < 0.05 * float(high["z"].abs().max())


def test_spaces_and_times_it_is_not_made_for_are_errors():
    image = LatentSpec({"z": Field((4, 8, 8))})
    with pytest.raises(ValueError, match=r"one field \(None, D\) or \(L, D\).*another backbone"):
        Transformer(image)
    with pytest.raises(ValueError, match="has its entries"):
        Transformer(SPEC, output=LatentSpec({"y": Field((None, 3))}))
    with pytest.raises(ValueError, match="has its entries"):
        Transformer(SPEC, output=FIXED)
    with pytest.raises(ValueError, match="one noise level per sample"):
        Transformer(SPEC, **SMALL)(noisy(), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="heads of even size"):
        Transformer(SPEC, width=30, heads=2)
