"""The U-Net over one, two and three axes: each beside the others, what it learns, what it takes."""

import itertools

import pytest
import torch

import anylatent as al
from anylatent.core.latents import token_condition
from anylatent.core.nn.unet import UNet
from anylatent.core.testing.guests import Recorder
from tests.core.toys import distance

SMALL = {"channels": 8, "embedding": 16, "blocks": 1, "heads": 2}
CONDITIONS = al.ConditionSpec(classes={"kind": 3}, scalars=("size",), tokens={"words": 5})
SHAPES = [(3, 7), (3, 6, 5), (3, 4, 5, 3)]


def made(shape, **given):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet(al.LatentSpec({"z": al.Field(shape, channels=0)}), **{**SMALL, **given})


def woken(backbone):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return backbone.eval().double()


def drawn(backbone, batch=3):
    return al.Noise.of(0, batch).like(backbone.spec.blank(batch, dtype=torch.float64))


def some_condition():
    generator = torch.Generator().manual_seed(1)
    words = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    return al.Condition(
        {
            "kind": torch.tensor([0, 1, 2]),
            "size": torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64),
            "words": token_condition(words, torch.arange(4) < torch.tensor([[4], [2], [0]])),
        }
    )


def call(backbone, z, cond=None):
    level = torch.tensor([-2.0, 0.5, 3.0], dtype=torch.float64)
    return backbone(backbone.spec.wrap({"z": z}), level, cond)["z"].detach()


# ---- beside one another -----------------------------------------------------------------------
@pytest.mark.parametrize("sides", [(9,), (6, 5)])
def test_a_flat_axis_changes_nothing(sides):
    """Beside an axis of side 1 all but the middle of each kernel sees the border alone."""
    settings = {"conditions": CONDITIONS, "multipliers": (1, 2, 2), "attention": (5, 3)}
    wide = woken(made((3, 1, *sides), **settings))
    narrow = made((3, *sides), **settings).eval().double()
    state = {}
    for name, value in narrow.state_dict().items():
        kernel = wide.state_dict()[name]
        state[name] = kernel if kernel.ndim == value.ndim else kernel[:, :, kernel.shape[2] // 2]
    narrow.load_state_dict(state)
    x = drawn(narrow)["z"]
    wanted = call(narrow, x, some_condition())
    found = call(wide, x[:, :, None], some_condition())[:, :, 0]
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12) and float(wanted.abs().max()) > 0.1


@pytest.mark.parametrize("order", [(1, 0), (1, 2, 0), (0, 2, 1)])
def test_no_axis_is_special(order):
    """With axes of latent, map and kernels in another order, the output is in that order."""
    sides = (4, 5, 3)[: len(order)]
    conditions = al.ConditionSpec(maps={"view": 2}, classes={"kind": 3})
    settings = {"conditions": conditions, "attention": (3,)}
    first = woken(made((3, *sides), **settings))
    turn = lambda x: x.permute(0, 1, *(2 + axis for axis in order))  # noqa: E731
    second = made((3, *(sides[axis] for axis in order)), **settings).eval().double()
    state = first.state_dict()
    grids = {name for name, value in state.items() if value.ndim > 2}
    second.load_state_dict({name: turn(v) if name in grids else v for name, v in state.items()})
    x, view = drawn(first)["z"], torch.randn(3, 2, *sides, dtype=torch.float64)
    kind = torch.tensor([0, 1, 2])
    wanted = turn(call(first, x, al.Condition({"kind": kind, "view": view})))
    found = call(second, turn(x), al.Condition({"kind": kind, "view": turn(view)}))
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)
    unturned = call(second, turn(x), al.Condition({"kind": kind}))
    assert not torch.allclose(unturned, wanted, atol=1e-3)  # the map is read


def test_parameters_have_the_same_names_over_any_axes():
    names = [
        list(made(shape, conditions=CONDITIONS, attention=()).state_dict()) for shape in SHAPES
    ]
    assert names[0] == names[1] == names[2]
    sites = [made(shape, attention=()).sites for shape in SHAPES]
    assert sites[0] == sites[1] == sites[2]


# ---- contracts --------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", SHAPES)
def test_contracts(shape):
    """Those of sites among them."""
    factory = lambda conditions: made(shape, conditions=conditions, attention=(2,))  # noqa: E731
    al.testing.check_backbone(factory, CONDITIONS)


@pytest.mark.parametrize("shape", SHAPES)
def test_levels_halve_every_side_and_maps_carry_all_axes(shape):
    """A side n has one of ceil(n / 2) below it, whatever its number of axes."""
    backbone = woken(made(shape, multipliers=(1, 1, 2)))
    guest, x = Recorder(), drawn(backbone)
    found = backbone(x, torch.zeros(3), None, guest)
    passed = {site.name: h for site, h, _ in guest.seen if site.layout == "map"}
    sides = shape[1:]
    for name in ("first", "down.1.lower", "down.2.lower"):
        assert passed[name].shape[2:] == sides
        sides = tuple(-(-side // 2) for side in sides)
    assert passed["up.2.raise"].shape[2:] == found["z"].shape[2:] == shape[1:]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_map_that_is_dropped_is_a_missing_map(shape):
    backbone = woken(made(shape, conditions=al.ConditionSpec(maps={"view": 2})))
    x, view = drawn(backbone)["z"], torch.randn(3, 2, *shape[1:], dtype=torch.float64)
    given = al.Condition({"view": view})
    assert torch.equal(call(backbone, x, given.null()), call(backbone, x))
    assert not torch.allclose(call(backbone, x, given), call(backbone, x), atol=1e-3)
    with pytest.raises(ValueError, match="the map 'view' must be"):
        call(backbone, x, al.Condition({"view": view[..., 1:]}))


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2]])
def test_it_compiles_whole(shape):
    backbone = woken(made(shape, conditions=CONDITIONS, multipliers=(1,)))
    x, cond = drawn(backbone), some_condition()
    compiled = torch.compile(backbone, fullgraph=True, backend="eager")
    level = torch.ones(3, dtype=torch.float64)
    assert distance(compiled(x, level, cond), backbone(x, level, cond)) < 1e-12


# ---- what it learns ---------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(1, 8), (1, 2, 2, 2)])
def test_it_learns_the_exact_denoiser_of_numbers_that_go_together(shape):
    """x0 = common + own at each place: E[x0 | x_t] is linear, with one gain for the mean over all
    places and another for what differs from it."""
    count, log_snr = 8, torch.tensor(0.0)
    alpha, sigma = log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
    common, own = 1.0, 0.3
    gains = [alpha * v / (alpha**2 * v + sigma**2) for v in (own**2 + count * common**2, own**2)]
    backbone = made(shape, multipliers=(1,), channels=16, embedding=32)
    optimiser = torch.optim.Adam(backbone.parameters(), lr=6e-3)
    generator = torch.Generator().manual_seed(0)
    normal = lambda *size: torch.randn(*size, generator=generator)  # noqa: E731

    def noisy(batch):
        ones = [1] * len(shape[1:])
        x0 = common * normal(batch, 1, *ones) + own * normal(batch, *shape)
        return x0, alpha * x0 + sigma * normal(batch, *shape)

    def denoised(x):
        return backbone(backbone.spec.wrap({"z": x}), torch.zeros(len(x)))["z"]

    for step in range(120):
        x0, x = noisy(48)
        for group in optimiser.param_groups:
            group["lr"] = 6e-3 * (1 - step / 120)
        optimiser.zero_grad()
        (denoised(x) - x0).square().mean().backward()
        optimiser.step()
    _, x = noisy(1000)
    mean = x.flatten(1).mean(1).reshape(-1, *[1] * len(shape))
    wanted = gains[0] * mean + gains[1] * (x - mean)
    with torch.no_grad():
        error = (denoised(x) - wanted).square().mean() / wanted.square().mean()
    alone = alpha * (common**2 + own**2) / (alpha**2 * (common**2 + own**2) + sigma**2)
    blind = (alone * x - wanted).square().mean() / wanted.square().mean()
    assert float(error) < 0.05 < 0.2 < float(blind), (float(error), float(blind))


# ---- what it takes ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    "field",
    [
        al.Field((5,)),
        al.Field((None, 4)),
        al.Field((6, 3), centred=True),
        al.Field((6, 4), channels=1),
        al.Field((3, 2, 4, 4), channels=1),
        al.Field((3, 2, 2, 2, 2)),
    ],
)
def test_other_latents_are_refused(field):
    with pytest.raises(ValueError, match=r"\(C, L\) or \(C, H, W\) or \(C, D, H, W\).*first, got"):
        UNet(al.LatentSpec({"z": field}))


def test_outputs_are_on_a_grid_of_the_same_axes():
    twice = al.LatentSpec({"z": al.Field((6, 7))})
    backbone = woken(made((3, 7), output=twice))
    found = backbone(drawn(backbone), torch.zeros(3))
    assert found.spec == twice and found["z"].shape == (3, 6, 7)
    with pytest.raises(ValueError, match=r"shape \(C, L\), of"):
        made((3, 7), output=al.LatentSpec({"z": al.Field((6, 7, 1))}))
    with pytest.raises(ValueError, match=r"shape \(C, H, W\), of"):
        al.get("backbone", "dit")(al.LatentSpec({"z": al.Field((4, 8))}))
    with pytest.raises(ValueError, match="one noise level per sample"):
        backbone(drawn(backbone), torch.zeros(3, 3))
    for first, second in itertools.pairwise(SHAPES):
        with pytest.raises(RuntimeError):
            made(first).load_state_dict(made(second).state_dict())
