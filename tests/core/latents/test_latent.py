"""Latents: the arithmetic of a masked linear subspace."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch.utils import _pytree

import anylatent as al
from anylatent.core.latents.latent import cat, combine
from tests.core.toys import alone, distance, like

SPECS = al.testing.SPECS
MOLECULE = SPECS["molecule"]
numbers = st.floats(-3, 3, allow_subnormal=False)
quick = settings(max_examples=40, deadline=None)


def random_latent(spec, lengths, seed=0, dtype=torch.float64, padded=None):
    variable = any(field.variable for field in spec.fields.values())
    blank = spec.blank(len(lengths), lengths if variable else None, dtype=dtype, padded=padded)
    return al.Noise.of(seed, len(lengths)).like(blank)


@st.composite
def problems(draw):
    spec = SPECS[draw(st.sampled_from(sorted(SPECS)))]
    lengths = draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    return spec, lengths


@quick
@given(problems(), numbers, st.integers(0, 9))
def test_arithmetic_is_that_of_each_tensor_and_stays_in_the_subspace(problem, c, seed):
    spec, lengths = problem
    x, y = random_latent(spec, lengths, seed), random_latent(spec, lengths, seed + 100)
    results = {
        "x + y": (x + y, lambda a, b: a + b),
        "x - y": (x - y, lambda a, b: a - b),
        "c * x": (c * x, lambda a, b: c * a),
        "x * c": (x * c, lambda a, b: a * c),
        "-x": (-x, lambda a, b: -a),
        "x / 4": (x / 4, lambda a, b: a / 4),
        "combine": (combine((c, x), (2.0, y), (-0.5, x)), lambda a, b: (c - 0.5) * a + 2 * b),
    }
    for name, (latent, function) in results.items():
        for field, part in latent.parts.items():
            wanted = function(x[field], y[field])
            assert torch.allclose(part, wanted, atol=1e-12), name
        assert al.testing.in_subspace(latent, 1e-12), name


@quick
@given(problems(), st.integers(0, 9))
def test_inner_product_axioms(problem, seed):
    spec, lengths = problem
    x, y, z = (random_latent(spec, lengths, seed + 100 * k) for k in range(3))
    c = torch.linspace(-1, 2, len(lengths), dtype=torch.float64)
    assert torch.allclose(x.dot(y), y.dot(x))
    assert torch.allclose((c * x + z).dot(y), c * x.dot(y) + z.dot(y), atol=1e-10)
    assert bool((x.dot(x) >= 0).all())
    assert torch.allclose(x.norm() ** 2, x.dot(x))
    assert torch.allclose(x.mse(y), (x - y).dot(x - y) / x.dim.clamp(min=1))


@quick
@given(problems(), st.integers(0, 9), st.sampled_from([0.0, torch.inf, torch.nan]))
def test_projection_is_orthogonal_and_ignores_the_padding(problem, seed, garbage):
    spec, lengths = problem
    inside = random_latent(spec, lengths, seed, padded=8 if "z" not in spec.fields else None)
    generator = torch.Generator().manual_seed(seed)
    free = inside.map(lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype))
    for name, mask in free.masks.items():
        free.parts[name][~mask] = garbage
    projected = free.project()
    assert al.testing.in_subspace(projected, 1e-12)
    assert distance(projected.project(), projected) < 1e-12
    rest = {n: torch.nan_to_num(x - projected[n], 0, 0, 0) for n, x in free.parts.items()}
    for name, mask in free.masks.items():
        rest[name] = rest[name] * mask.reshape(mask.shape + (1,) * (rest[name].ndim - 2))
    residual = al.Latent(rest, free.masks, spec)
    assert float(residual.dot(inside).abs().max()) < 1e-9  # the residual is normal to it


def test_dim_counts_degrees_of_freedom():
    blank = MOLECULE.blank(3, [4, 1, 9])
    assert blank.dim.tolist() == [3 * 3 + 4 * 5, 0 + 5, 8 * 3 + 9 * 5]
    assert SPECS["image"].blank(2).dim.tolist() == [256, 256]
    assert SPECS["shape"].blank(1).dim.tolist() == [5 + 24]


def test_dim_is_the_expected_square_of_noise():
    """E‖z‖² = trace of the projection: over 4000 draws to 3 standard errors."""
    blank = MOLECULE.blank(4000, [6] * 4000, dtype=torch.float64)
    squares = al.Noise.of(0, 4000).like(blank).norm() ** 2
    dim = float(blank.dim[0])
    assert abs(float(squares.mean()) - dim) < 3 * (2 * dim / 4000) ** 0.5


def test_mse_of_a_padded_batch_is_each_sample_s_own():
    x = random_latent(MOLECULE, [5, 2, 9])
    y = random_latent(MOLECULE, [5, 2, 9], seed=1)
    own = torch.cat([alone(x, i).mse(alone(y, i)) for i in range(3)])
    assert torch.allclose(x.mse(y), own)


@pytest.mark.parametrize("shape", ((), (3,), (3, 3)))
def test_a_coefficient_multiplies_leading_axes(shape):
    x = random_latent(SPECS["video"], [1] * 3)
    c = torch.arange(1.0, 1 + torch.Size(shape).numel()).reshape(shape)
    wanted = x["z"] * c.double().reshape(shape + (1,) * (5 - len(shape)))
    for got in (c * x, x * c, combine((c, x)), c.double() * x):
        assert torch.equal(got["z"], wanted)
        assert got.dtype == torch.float64


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16, torch.float32))
def test_a_float64_coefficient_keeps_the_field_s_precision(dtype):
    x = random_latent(SPECS["text"], [3, 2], dtype=dtype)
    for c in (torch.tensor(0.5).double(), torch.tensor([0.5, 2.0]).double()):
        assert (c * x).dtype == dtype
        assert combine((c, x), (0.3, x)).dtype == dtype


def test_a_coefficient_of_the_wrong_shape_is_an_error():
    x = random_latent(SPECS["video"], [1] * 2)
    for shape in ((3,), (2, 2), (2, 3, 1)):
        with pytest.raises(ValueError, match="coefficient"):
            torch.ones(shape) * x
    centred = random_latent(MOLECULE, [3, 3])
    with pytest.raises(ValueError, match="subspace"):
        torch.ones(2, 3) * centred


def test_latents_of_different_spaces_do_not_mix():
    x, y = random_latent(SPECS["image"], [1]), random_latent(SPECS["shape"], [1])
    for function in (lambda: x + y, lambda: x.dot(y), lambda: cat([x, y])):
        with pytest.raises(ValueError, match="different spaces"):
            function()
    with pytest.raises(TypeError):
        x + 1
    with pytest.raises(TypeError):
        torch.sin(x)


def test_selecting_taking_and_joining():
    x = random_latent(MOLECULE, [5, 2, 9])
    assert distance(cat([x.select([0]), x.select(slice(1, 3))]), x) == 0
    assert x.select(torch.tensor([True, False, True])).batch == 2
    part = x.take(["h"])
    assert list(part.spec.fields) == ["h"] and torch.equal(part["h"], x["h"])


def test_replacing_projects():
    x = random_latent(MOLECULE, [5, 2])
    moved = x.replace(x=x["x"] + 3.0)
    assert distance(moved, x) < 1e-12  # a translation is undone
    with pytest.raises(ValueError, match="no field"):
        x.replace(y=x["x"])


def test_wrap_checks_shapes_masks_and_projects():
    mask = torch.tensor([[True, True, False]])
    parts = {"x": torch.randn(1, 3, 3), "h": torch.randn(1, 3, 5)}
    latent = MOLECULE.wrap(parts, {"x": mask, "h": mask})
    assert al.testing.in_subspace(latent)
    bad = [
        ({"x": parts["x"]}, {"x": mask}, "fields"),
        ({**parts, "x": torch.randn(1, 3, 4)}, {"x": mask, "h": mask}, "shape"),
        (parts, {"x": mask}, "needs a mask"),
        (parts, {"x": mask.float(), "h": mask}, "bool"),
        (parts, {"x": mask[:, :2], "h": mask}, "bool"),
    ]
    for tensors, masks, message in bad:
        with pytest.raises(ValueError, match=message):
            MOLECULE.wrap(tensors, masks)
    with pytest.raises(ValueError, match="takes no mask"):
        SPECS["shape"].wrap(SPECS["shape"].blank(1).parts, {"points": torch.ones(1, 6).bool()})


@pytest.mark.parametrize(
    ("shape", "options"),
    (
        ((), {}),
        ((4, None), {}),
        ((0, 3), {}),
        ((3,), {"centred": True}),
        ((None, 3), {"channels": 0}),
        ((4, 8), {"channels": 2}),
    ),
)
def test_a_field_without_meaning_is_an_error(shape, options):
    with pytest.raises(ValueError):
        al.Field(shape, **options)


def test_a_blank_needs_the_lengths_it_needs():
    for arguments in ({"batch": 2}, {"batch": 2, "lengths": [1]}, {"batch": 1, "lengths": [0]}):
        with pytest.raises(ValueError, match="length"):
            MOLECULE.blank(**arguments)
    with pytest.raises(ValueError, match="shorter"):
        MOLECULE.blank(1, [5], padded=4)
    with pytest.raises(ValueError, match="no variable field"):
        SPECS["image"].blank(1, [3])
    with pytest.raises(ValueError, match="at least one sample"):
        SPECS["image"].blank(0)


def test_specs_compare_by_value_and_hash():
    one = al.LatentSpec({"z": al.Field((4, 8, 8))})
    other = al.LatentSpec({"z": al.Field([4, 8, 8])})
    assert one == other and hash(one) == hash(other) and len({one, other}) == 1
    assert one != al.LatentSpec({"z": al.Field((4, 8, 9))})
    pair = {"a": al.Field((1,)), "b": al.Field((2,))}
    assert al.LatentSpec(pair) != al.LatentSpec(dict(reversed(pair.items())))


def test_a_latent_is_a_pytree():
    x = random_latent(MOLECULE, [5, 2])
    doubled = _pytree.tree_map(lambda t: t if t.dtype == torch.bool else 2 * t, x)
    assert distance(doubled, 2.0 * x) == 0 and doubled.spec is x.spec


def test_gradients_pass_through_arithmetic():
    x = random_latent(MOLECULE, [3, 2])
    leaf = x.map(lambda t: t.clone().requires_grad_())
    y = combine((torch.tensor([2.0, 3.0]), leaf), (1.0, leaf)).project()
    y.dot(y).sum().backward()
    wanted = 2 * (torch.tensor([3.0, 4.0]).double() ** 2) * x
    assert torch.allclose(leaf["x"].grad, wanted["x"])


def test_moving_keeps_masks_boolean():
    x = random_latent(MOLECULE, [3, 2]).to(torch.float32)
    assert x.dtype == torch.float32 and x.masks["x"].dtype == torch.bool


def test_constant_is_zero_on_centred_fields():
    ones = like(MOLECULE.blank(2, [3, 2]), 1.0)
    assert not bool(ones["x"].any()) and float(ones["h"].sum()) == 5 * 5


@pytest.mark.parametrize("first", (1.0, 2.0))
def test_a_sum_leaves_its_terms_as_they_were(first):
    """Where no gradient is kept the sum is added up in place, but never in a term."""
    x, y = (random_latent(MOLECULE, torch.tensor([4, 2]), seed) for seed in (0, 1))
    kept = [z.map(torch.clone) for z in (x, y)]
    with torch.no_grad():
        total = combine((first, x), (-3.0, y), (0.5, x))
    for z, old in zip((x, y), kept, strict=True):
        assert all(torch.equal(z[name], old[name]) for name in z.parts)
    wanted = (first + 0.5) * kept[0] + -3.0 * kept[1]
    assert distance(total, wanted) < 1e-12
