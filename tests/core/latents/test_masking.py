"""Which tokens are given: valid ones, never all, and as the rule says."""

import pytest
import torch

import anylatent as al
from anylatent.core.latents.masking import reveal

LENGTHS = torch.tensor([1, 2, 7, 20] * 500)
VALID = torch.arange(20) < LENGTHS[:, None]
RULES = [name for name in al.names("masking") if name != "none"]


def drawn(name, seed=0, **settings):
    return al.get("masking", name)(**settings)(VALID, al.Noise.of(seed, len(LENGTHS)))


@pytest.mark.parametrize("name", RULES)
def test_only_valid_entries_are_given_and_one_is_always_left(name):
    given = drawn(name)
    assert given.dtype == torch.bool and not bool((given & ~VALID).any())
    assert bool(((VALID & ~given).sum(1) >= 1).all())
    if name in ("ends", "every"):
        return  # at the same places in all samples
    last = 19 if name == "prefix" else 20  # the last entry of all is in no prefix
    assert bool(given[LENGTHS == 20].any(0)[:last].all()), "some place is never given"
    assert bool((~given)[LENGTHS == 20].any(0).all()), "some place is always given"


@pytest.mark.parametrize("name", RULES)
def test_neighbours_and_padding_change_nothing(name):
    part = al.get("masking", name)()
    joint = part(VALID[:8], al.Noise.of(0, 8))
    for i in range(8):
        own = part(VALID[i : i + 1, : LENGTHS[i]], al.Noise.of(0, [i]))
        assert torch.equal(own[0], joint[i, : LENGTHS[i]])


def test_a_prefix_is_the_beginning_and_uniform_in_length():
    given = drawn("prefix")
    counts = given.sum(1)
    assert torch.equal(given, torch.arange(20) < counts[:, None])
    share = torch.bincount(counts[LENGTHS == 20], minlength=20) / 500
    assert len(share) == 20 and float((share - 1 / 20).abs().max()) < 5 * (0.05 / 500) ** 0.5


@pytest.mark.parametrize("entries", (1, 5, 30))
def test_a_prefix_of_so_many_entries_is_that_long_where_there_is_one_more(entries):
    given = drawn("prefix", entries=entries)
    counts = (LENGTHS - 1).clamp(max=entries)
    assert torch.equal(given, torch.arange(20) < counts[:, None])
    with pytest.raises(ValueError, match="entries=0"):
        al.get("masking", "prefix")(entries=0)


def test_the_ends_are_the_first_and_the_last_entry():
    given = drawn("ends")[:4]
    wanted = [[], [0], [0, 6], [0, 19]]
    assert [row.nonzero()[:, 0].tolist() for row in given] == wanted


def test_every_third_entry_is_a_key_frame_from_the_first_on():
    given = drawn("every", step=3)[:4]
    wanted = [[], [0], [0, 3, 6], [0, 3, 6, 9, 12, 15, 18]]
    assert [row.nonzero()[:, 0].tolist() for row in given] == wanted
    with pytest.raises(ValueError, match="step=1"):
        al.get("masking", "every")(step=1)


def test_scattered_gives_half_on_average_and_spans_leave_spans():
    long = LENGTHS == 20
    assert float(drawn("scattered")[long].double().mean()) == pytest.approx(0.475, abs=0.05)
    hidden = ~drawn("spans", most=1)[long]
    edges = hidden.int().diff(dim=1).abs().sum(1) + hidden[:, 0].int() + hidden[:, -1].int()
    assert bool((edges == 2).all())  # one span each


def test_mixed_leaves_its_share_free():
    given = drawn("mixed", free=0.7)[LENGTHS == 20]
    assert float((~given.any(1)).double().mean()) == pytest.approx(0.7 + 0.3 / 3 / 20, abs=0.08)
    assert not bool(drawn("mixed", free=1.0).any())
    for bad in (-0.1, 1.1):
        with pytest.raises(ValueError, match="share"):
            al.get("masking", "mixed")(free=bad)
    with pytest.raises(ValueError, match="span"):
        al.get("masking", "spans")(most=0)


def test_nothing_is_none():
    assert al.get("masking", "none")()(VALID, al.Noise.of(0, len(LENGTHS))) is None


def test_what_is_revealed_is_clean_and_the_rest_noisy():
    spec = al.testing.SPECS["text"]
    blank = al.testing.example(spec)
    x0, x = (al.Noise.of(seed, 4).like(blank) for seed in (0, 1))
    given = torch.zeros(x0["z"].shape[:2], dtype=torch.bool)
    given[:, 1] = True
    out = reveal(x, x0, {"z": given})
    assert torch.equal(out["z"][:, 1], x0["z"][:, 1]) and torch.equal(out["z"][:, 0], x["z"][:, 0])
