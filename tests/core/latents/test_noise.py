"""Noise: a function of the sample's key, so that no sample's draws depend on its neighbours."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

import anylatent as al
from anylatent.core.latents.hashing import STEP, mix
from tests.core.toys import alone, distance

seeds = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5)


@pytest.mark.parametrize("key", al.testing.SPECS)
def test_each_draw_equals_that_of_the_sample_alone_bit_for_bit(key):
    blank = al.testing.example(al.testing.SPECS[key], 8)
    seeds = [4, 8, 15, 16, 23, 42, 2**40, 5]
    joint = al.Noise(seeds)
    singles = [al.Noise([seed]) for seed in seeds]
    for _ in range(3):  # successive draws too
        batch = joint.like(blank)
        for i, single in enumerate(singles):
            drawn = single.like(alone(blank, i))
            for name, x in drawn.parts.items():
                wanted = alone(batch, i)[name]
                if blank.spec.fields[name].centred:  # sums of different lengths round apart
                    assert float((x - wanted).abs().max()) < 1e-14
                else:
                    assert torch.equal(x, wanted)


def test_centred_noise_is_bit_for_bit_equal_before_it_is_projected():
    spec = al.LatentSpec({"x": al.Field((None, 3))})
    blank = spec.blank(3, [4, 30, 7])
    batch = al.Noise([1, 2, 3]).like(blank)
    for i in range(3):
        single = al.Noise([i + 1]).like(alone(blank, i))
        assert torch.equal(single["x"], alone(batch, i)["x"])


def test_padding_does_not_change_the_draws():
    spec = al.testing.SPECS["molecule"]
    one = al.Noise([1, 2]).like(spec.blank(2, [5, 3]))
    other = al.Noise([1, 2]).like(spec.blank(2, [5, 3], padded=12))
    for name, x in one.parts.items():
        assert float((other[name][:, :5] - x).abs().max()) < 1e-6


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_equal_seeds_repeat_and_successive_draws_differ(seeds):
    spec = al.LatentSpec({"z": al.Field((6,))})
    blank = spec.blank(len(seeds))
    first, second = al.Noise(seeds), al.Noise(seeds)
    one, two = first.like(blank), second.like(blank)
    assert torch.equal(one["z"], two["z"])
    assert not torch.equal(first.like(blank)["z"], one["z"])


def test_seeds_that_agree_in_64_bits_differ_by_their_run():
    blank = al.LatentSpec({"z": al.Field((6,))}).blank(3)
    z = al.Noise([(2**64, 5), (0, 5), (1, 5)]).like(blank)["z"]
    assert len({tuple(row) for row in z.tolist()}) == 3


def test_seeds_that_agree_in_32_bits_differ():
    blank = al.LatentSpec({"z": al.Field((6,))}).blank(3)
    z = al.Noise([5, 5 + 2**32, (0, 5)]).like(blank)["z"]
    assert not torch.equal(z[0], z[1]) and not torch.equal(z[0], z[2])


def test_the_samples_of_a_run_never_collide():
    """Random keys might collide, an odd multiplier can't."""
    blank = al.LatentSpec({"z": al.Field((2,))}).blank(4096)
    z = al.Noise.of(0, 4096).like(blank)["z"]
    assert len({tuple(row) for row in z.tolist()}) == 4096


def test_precision_does_not_change_the_picture():
    spec = al.testing.SPECS["image"]
    draws = [al.Noise.of(0, 2).like(spec.blank(2, dtype=d)) for d in (torch.float32, torch.float64)]
    assert torch.equal(draws[0]["z"].double(), draws[1]["z"])


def test_positions_select_from_the_run():
    spec = al.testing.SPECS["image"]
    all_of_them = al.Noise.of(3, 10).like(spec.blank(10))
    some = al.Noise.of(3, [7, 2]).like(spec.blank(2))
    assert torch.equal(some["z"], all_of_them["z"][[7, 2]])


def test_draws_are_standard_normal_on_the_subspace():
    """Covariance of a centred field: I - 11ᵀ/N, entry by entry to 5 standard errors."""
    count, points = 20000, 3
    spec = al.LatentSpec({"x": al.Field((points, 2), centred=True)})
    x = al.Noise.of(0, count).like(spec.blank(count, dtype=torch.float64))["x"][..., 0]
    wanted = torch.eye(points).double() - 1 / points
    assert float((x.T @ x / count - wanted).abs().max()) < 5 / count**0.5
    assert float(x.mean(0).abs().max()) < 5 / count**0.5


def test_the_numbers_are_normal_by_kolmogorov_and_in_the_tail():
    """The largest distance of distribution functions, times √n, exceeds 1.95 once in 1,000."""
    x = al.Noise.of(1, 64).normal(5000).double().flatten().sort().values
    n = len(x)
    distance = (torch.special.ndtr(x) - torch.arange(n) / n).abs().max()
    assert float(distance) * n**0.5 < 1.95
    beyond = float((x.abs() > 4).double().mean())
    assert beyond == pytest.approx(6.334e-5, rel=0.6)


@pytest.mark.parametrize(
    "other", ["the next number", "the next sample", "the next draw", "a source apart"]
)
def test_neighbouring_numbers_samples_and_draws_are_independent(other):
    """Correlations of x and of x², which a poor hash of counters leaves, to 5 standard errors."""
    noise = al.Noise.of(2, 200)
    x = noise.normal(1000).double()
    y = {
        "the next number": lambda: x.roll(1, 1),
        "the next sample": lambda: x.roll(1, 0),
        "the next draw": lambda: noise.normal(1000).double(),
        "a source apart": lambda: al.Noise.of(2, 200).apart().normal(1000).double(),
    }[other]()
    for f, scale in ((lambda v: v, 1.0), (lambda v: v**2 - 1, 2.0)):
        assert abs(float((f(x) * f(y)).mean())) < 5 * scale / x.numel() ** 0.5


def test_a_source_apart_moves_no_draw_and_is_each_sample_s_own():
    one, other = al.Noise.of(3, 4), al.Noise.of(3, 4)
    x = one.apart().normal(2)
    one.apart(2).shared_uniform()
    assert torch.equal(one.normal(3), other.normal(3))
    assert torch.equal(one.apart().normal(2), x), "from its first draw on"
    assert torch.equal(al.Noise.of(3, [2]).apart().normal(2), x[2:3])
    assert not torch.equal(other.apart(2).normal(2), x)
    assert other.apart().shared_uniform() != al.Noise.of(3, 4).shared_uniform()


def test_a_later_draw_does_not_depend_on_the_length_of_an_earlier_one():
    one, other = al.Noise([7]), al.Noise([7])
    one.normal(3), other.normal(50)
    assert torch.equal(one.normal(4), other.normal(4))


def test_the_mixing_of_keys_is_splitmix64():
    """The first outputs of SplitMix64 from the seed 1234567, of its authors' reference code."""
    states = torch.arange(1, 4) * STEP + 1234567
    outputs = [value % 2**64 for value in mix(states).tolist()]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_the_global_generator_is_neither_read_nor_moved():
    blank = al.testing.SPECS["image"].blank(1)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one = al.Noise([0]).like(blank)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1)
    assert distance(one, al.Noise([0]).like(blank)) == 0


def test_uniform_numbers_and_the_shared_one():
    u = al.Noise.of(0, 3).uniform(1000)
    assert u.dtype == torch.float64 and u.shape == (3, 1000)
    assert 0 <= float(u.min()) and float(u.max()) < 1
    shares = [al.Noise.of(0, positions).shared_uniform() for positions in ([0, 1], [5])]
    assert float(shares[0]) == float(shares[1])


def test_a_batch_of_another_size_is_an_error():
    with pytest.raises(ValueError, match="noise for 2 samples"):
        al.Noise([1, 2]).like(al.testing.SPECS["image"].blank(3))
    with pytest.raises(ValueError, match="one seed per sample"):
        al.Noise([])
