"""The normaliser: unit variance per degree of freedom, one affine map per field or channel."""

import pytest
import torch

import anylatent as al
from anylatent.core.latents.posterior import Posterior
from anylatent.core.testing.examples import spoil
from tests.core.toys import distance

IMAGE, MOLECULE = al.testing.SPECS["image"], al.testing.SPECS["molecule"]


def batches(spec, scale, shift, count=40):
    """Posteriors of known mean and width, and of a known own deviation."""
    for k in range(count):
        blank = al.testing.example(spec, 8)
        z = al.Noise.of(k, 8).like(blank)
        mean = z.map(lambda x: x * scale + shift).project()
        yield Posterior(mean, blank.map(lambda x: torch.full_like(x, -1.0)))


def test_per_channel_statistics_include_the_posterior_s_own_deviation():
    scale = torch.tensor([0.5, 1.0, 2.0, 4.0]).double()[:, None, None]
    shift = torch.tensor([1.0, 0.0, -3.0, 2.0]).double()[:, None, None]
    normaliser = al.Normaliser(IMAGE)
    normaliser.fit(batches(IMAGE, scale, shift))
    own = torch.exp(torch.tensor(-1.0)) ** 2
    wanted = (scale.flatten() ** 2 + own).sqrt().float()
    assert torch.allclose(normaliser.scale_z, wanted, rtol=0.03)
    assert torch.allclose(normaliser.shift_z, shift.flatten().float(), atol=0.1)


def test_encoded_samples_have_zero_mean_and_unit_variance():
    """Padding and centring counted by degrees of freedom."""
    normaliser = al.Normaliser(MOLECULE)
    posteriors = list(batches(MOLECULE, 3.0, 0.7))
    normaliser.fit(posteriors)
    squares = {"x": 0.0, "h": 0.0}
    degrees = {"x": 0.0, "h": 0.0}
    for k, posterior in enumerate(posteriors):
        z = normaliser.encode(posterior.sample(al.Noise.of(1000 + k, 8)))
        assert al.testing.in_subspace(z)
        for name in squares:
            part = z.take([name])
            squares[name] += float((part.norm() ** 2).sum())
            degrees[name] += float(part.dim.sum())
    for name in squares:
        assert squares[name] / degrees[name] == pytest.approx(1, rel=0.03)


def test_decoding_undoes_encoding():
    for spec in (IMAGE, MOLECULE, al.testing.SPECS["shape"]):
        normaliser = al.Normaliser(spec)
        normaliser.fit(batches(spec, 2.0, 0.5, 4))
        z = al.Noise.of(0, 4).like(al.testing.example(spec))
        assert distance(normaliser.decode(normaliser.encode(z)), z) < 1e-6
        assert al.testing.in_subspace(normaliser.decode(z))


def test_a_centred_field_has_one_scale_and_no_shift_so_rotations_commute():
    normaliser = al.Normaliser(MOLECULE)
    normaliser.fit(batches(MOLECULE, 2.0, 5.0, 4))
    assert normaliser.shift_x.ndim == 0 and float(normaliser.shift_x) == 0
    z = al.Noise.of(0, 4).like(al.testing.example(MOLECULE))
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    turned = normaliser.encode(z.replace(x=z["x"] @ rotation))
    assert torch.allclose(turned["x"], normaliser.encode(z)["x"] @ rotation)


def test_unfitted_is_the_identity_and_the_state_is_saved():
    z = al.Noise.of(0, 4).like(al.testing.example(IMAGE))
    fresh, fitted = al.Normaliser(IMAGE), al.Normaliser(IMAGE)
    assert distance(fresh.encode(z), z) == 0
    fitted.fit(batches(IMAGE, 2.0, 0.5, 2))
    fresh.load_state_dict(fitted.state_dict())
    assert distance(fresh.encode(z), fitted.encode(z)) == 0


def test_the_padding_of_the_deviations_may_hold_anything():
    posterior = next(batches(MOLECULE, 1.0, 0.0, 1))
    clean, dirty = al.Normaliser(MOLECULE), al.Normaliser(MOLECULE)
    clean.fit([posterior])
    dirty.fit([Posterior(posterior.mean, spoil(posterior.log_std))])
    for name, value in clean.state_dict().items():
        assert torch.allclose(dirty.state_dict()[name], value), name


def test_constants_are_those_that_are_given_and_no_data_change_them():
    normaliser = al.Normaliser.fixed(IMAGE, shifts={"z": 0.5}, scales={"z": 4.0})
    z = al.Noise.of(0, 2).like(IMAGE.blank(2))
    assert torch.allclose(normaliser.encode(z)["z"], (z["z"] - 0.5) / 4)
    assert not normaliser.fits and al.Normaliser(IMAGE).fits
    with pytest.raises(ValueError, match="constants that no data change"):
        normaliser.fit(batches(IMAGE, 2.0, 0.5, 4))
    scales = torch.arange(1.0, 1 + IMAGE.fields["z"].shape[0])
    assert torch.equal(al.Normaliser.fixed(IMAGE, scales={"z": scales}).scale_z, scales)


def test_without_constants_nothing_is_changed():
    for spec in (IMAGE, MOLECULE):
        normaliser = al.Normaliser.fixed(spec)
        (z,) = (posterior.mean for posterior in batches(spec, 2.0, 0.5, 1))
        for name, part in normaliser.encode(z).parts.items():
            assert torch.equal(part, z.project()[name])
        assert normaliser.state_dict().keys() == al.Normaliser(spec).state_dict().keys()


@pytest.mark.parametrize(
    ("spec", "given", "message"),
    (
        (IMAGE, {"scales": {"h": 1.0}}, "a scale of 'h', but the fields are z"),
        (MOLECULE, {"shifts": {"x": 1.0}}, "'x' is centred"),
        (IMAGE, {"scales": {"z": 0.0}}, "must be positive, got 0"),
    ),
)
def test_constants_that_cannot_be(spec, given, message):
    with pytest.raises(ValueError, match=message):
        al.Normaliser.fixed(spec, **given)
