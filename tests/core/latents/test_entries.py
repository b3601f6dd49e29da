"""Entries of a latent: which spaces have them, errors of what is free, masks over any axes."""

import pytest
import torch

import anylatent as al
from anylatent.core.latents.entries import free_mse
from anylatent.core.latents.masking import given_map, reveal
from tests.core.toys import alone, distance, sizes

SPECS = al.testing.SPECS
TWO = al.LatentSpec({"a": al.Field((None, 3)), "b": al.Field((None, 2, 2), channels=1)})
UNEQUAL = al.LatentSpec({"a": al.Field((4, 3)), "b": al.Field((6, 2))})


def drawn(spec, batch=4, seed=0):
    return al.Noise.of(seed, batch).like(sizes(spec, batch))


def test_which_spaces_have_entries():
    found = {key for key, spec in SPECS.items() if spec.has_entries}
    assert found == {"video", "text"} and TWO.has_entries and not UNEQUAL.has_entries
    assert al.LatentSpec({"z": al.Field((None,))}).has_entries
    assert not al.LatentSpec({"z": al.Field((7,))}).has_entries  # a vector
    for key in ("image", "molecule", "shape"):
        with pytest.raises(ValueError, match="one first axis in common"):
            print(drawn(SPECS[key]).entries)


@pytest.mark.parametrize("spec", (SPECS["video"], SPECS["text"], TWO))
def test_errors_of_entries_are_a_loop_over_them(spec):
    x, other = drawn(spec, seed=0), drawn(spec, seed=1)
    count = x.entries
    error, free = free_mse(x, other, torch.zeros(4, count), {})
    for b in range(4):
        for k in range(count):
            gaps = [(x[n] - other[n])[b, k].flatten() for n in x.parts]
            valid = all(bool(mask[b, k]) for mask in x.masks.values())
            gap = torch.cat(gaps)
            assert int(free[b, k]) == (len(gap) if valid else 0)
            assert float(error[b, k]) == pytest.approx(float(gap.square().mean()) if valid else 0)
    assert torch.allclose((error * free).sum(1) / free.sum(1), x.mse(other))
    with pytest.raises(ValueError, match="entries"):
        free_mse(x, other, torch.zeros(4, count + 1), {})


@pytest.mark.parametrize("key", ("image", "video", "text", "shape"))
def test_errors_of_what_is_free_are_a_loop_over_its_numbers(key):
    x, other = drawn(SPECS[key], seed=0), drawn(SPECS[key], seed=1)
    coin = torch.Generator().manual_seed(0)
    shapes = {"image": (4, 1, 8, 8), "video": (4, 3, 1, 4), "text": (4, 5), "shape": (4, 6)}
    name = "points" if key == "shape" else "z"
    given = {name: torch.rand(shapes[key], generator=coin) < 0.5}
    error, free = free_mse(x, other, torch.zeros(4), given)
    for b in range(4):
        kept = []
        for n, z in alone(x, b).parts.items():
            gap = (z - alone(other, b)[n]).square()
            hidden = torch.zeros_like(gap, dtype=torch.bool)
            if n in given:
                mask = given[n][b : b + 1]
                mask = mask[:, : z.shape[1]] if key == "text" else mask
                hidden = mask.reshape(mask.shape + (1,) * (z.ndim - mask.ndim)).expand_as(gap)
            kept.append(gap[~hidden])
        kept = torch.cat(kept)
        assert int(free[b]) == len(kept)
        assert float(error[b]) == pytest.approx(float(kept.sum()) / max(len(kept), 1))


def test_free_numbers_of_centred_points():
    """Of 5 points in space 12; with k of them known but for their place 3·(5 - k)."""
    x = drawn(SPECS["molecule"], 1)
    for k, points in ((0, 12), (1, 12), (2, 9), (4, 3)):
        mask = (torch.arange(5) < k)[None]
        _, free = free_mse(x, x.zeros(), torch.zeros(1), {"x": mask, "h": mask})
        assert int(free) == points + 5 * (5 - k)
    assert int(free_mse(x, x.zeros(), torch.zeros(1), {})[1]) == int(x.dim)


# ---- masks over any axes ----------------------------------------------------------------------
RULES = [name for name in al.names("masking") if name != "none"]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    ("key", "axes", "shape"),
    (
        ("image", (1, 2), (4, 1, 8, 8)),
        ("image", (2,), (4, 1, 1, 8)),
        ("video", (0,), (4, 3)),
        ("video", (0, 2), (4, 3, 1, 4)),
        ("text", (0,), (4, 5)),
    ),
)
def test_masks_lie_over_the_axes_that_are_asked_for(name, key, axes, shape):
    x, part = drawn(SPECS[key]), al.get("masking", name)(axes=axes)
    given = part.given(x, al.Noise.of(0, 4))
    assert list(given) == ["z"] and given["z"].shape == shape
    flat = given["z"].flatten(1)
    rows = part(torch.ones(4, flat.shape[1], dtype=torch.bool), al.Noise.of(0, 4))
    if key != "text":
        assert torch.equal(flat, rows)  # entries in rows
    for i in range(4):
        own = part.given(alone(x, i), al.Noise.of(0, [i]))["z"]
        assert torch.equal(own.flatten(), flat[i, : own.numel()])


def test_fields_with_the_same_entries_share_a_mask_and_others_have_their_own():
    part = al.get("masking", "scattered")()
    given = part.given(drawn(SPECS["molecule"]), al.Noise.of(0, 4))
    assert torch.equal(given["x"], given["h"]) and bool(given["x"].any())
    given = part.given(drawn(UNEQUAL), al.Noise.of(0, 4))
    assert given["a"].shape == (4, 4) and given["b"].shape == (4, 6)
    given = part.given(drawn(SPECS["shape"]), al.Noise.of(0, 4))
    assert list(given) == ["points"]  # a vector has no entries
    assert al.get("masking", "none")().given(drawn(UNEQUAL), al.Noise.of(0, 4)) == {}


def test_axes_without_meaning_are_errors():
    for axes in ((), (1, 0), (-1,), (1, 1)):
        with pytest.raises(ValueError, match="rising"):
            al.get("masking", "prefix")(axes=axes)
    with pytest.raises(ValueError, match="masking.axes"):
        al.get("masking", "prefix")().given(drawn(SPECS["image"]), al.Noise.of(0, 4))


def test_what_is_revealed_of_centred_points_is_their_shape_where_they_are():
    x, x0 = drawn(SPECS["molecule"], seed=0), drawn(SPECS["molecule"], seed=1)
    given = (torch.arange(5) < torch.tensor([3, 1, 0, 2])[:, None]) & x.masks["x"]
    out = reveal(x, x0, {"x": given, "h": given})
    assert al.testing.in_subspace(out)
    mean = lambda z: torch.where(given[..., None], z, 0).sum(1) / given.sum(1).clamp(min=1)[:, None]  # noqa: E731
    assert torch.allclose(mean(out["x"]), mean(x["x"]))
    shape = lambda z: torch.where(given[..., None], z - mean(z)[:, None], 0)  # noqa: E731
    assert torch.allclose(shape(out["x"]), shape(x0["x"]))
    rest = ~given[..., None]
    assert torch.equal(torch.where(rest, out["x"], 0), torch.where(rest, x["x"], 0))
    assert torch.equal(out["h"][0, :3], x0["h"][0, :3])


def test_the_map_of_what_is_given():
    image, video = drawn(SPECS["image"]), drawn(SPECS["video"])
    mask = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.equal(given_map(image, {"z": mask}), mask.double())
    frames = torch.tensor([[True, False, True]]).expand(4, 3)
    laid = given_map(video, {"z": frames})
    assert laid.shape == (4, 3, 1, 4, 4) and bool(
        (laid[:, ::2] == 1).all() & (laid[:, 1] == 0).all()
    )
    assert torch.equal(given_map(image, {}), torch.zeros(4, 1, 8, 8))
    points = torch.arange(6).expand(4, 6) < 2
    assert torch.equal(
        given_map(drawn(SPECS["shape"]), {"points": points})[..., 0], points.double()
    )
    both = given_map(drawn(UNEQUAL), {"b": points})
    assert torch.equal(both["b"][..., 0], points.double()) and not bool(both["a"].any())
    with pytest.raises(ValueError, match="some channels"):
        given_map(image, {"z": torch.ones(4, 4, dtype=torch.bool)})
    atoms = drawn(SPECS["molecule"])
    known = atoms.masks["x"] & (torch.arange(5) < 2)
    assert torch.equal(given_map(atoms, {"x": known, "h": known})[..., 0], known.double())
    with pytest.raises(ValueError, match="share their places"):
        given_map(atoms, {"x": known})


def test_errors_do_not_depend_on_padding():
    x, other = drawn(SPECS["text"], seed=0), drawn(SPECS["text"], seed=1)
    given = {"z": al.get("masking", "scattered")()(x.masks["z"], al.Noise.of(0, 4))}
    joint, _ = free_mse(x, other, torch.zeros(4), given)
    for i in range(4):
        mine = {"z": given["z"][i : i + 1, : alone(x, i)["z"].shape[1]]}
        own, _ = free_mse(alone(x, i), alone(other, i), torch.zeros(1), mine)
        assert torch.allclose(own[0], joint[i])
    assert distance(x, x) == 0
