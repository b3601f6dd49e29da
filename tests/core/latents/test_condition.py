"""Conditions: values, what is dropped, and batches of them."""

import pytest
import torch

import anylatent as al
from anylatent.core.latents.condition import token_condition


def pair(batch=3):
    states = torch.randn(batch, 4, 5)
    mask = torch.arange(4) < torch.tensor([2, 4, 1])[:batch, None]
    return al.Condition(
        {"kind": torch.arange(batch), "words": token_condition(states, mask)},
        {"kind": torch.tensor([True, False, True])[:batch]},
    )


def test_what_is_not_said_is_kept():
    cond = pair()
    assert cond.keep["kind"].tolist() == [True, False, True]
    assert cond.keep["words"].tolist() == [True] * 3
    assert cond and not al.Condition()


def test_null_drops_named_keys_or_all():
    cond = pair()
    one = cond.null("words")
    assert not one.keep["words"].any() and torch.equal(one.keep["kind"], cond.keep["kind"])
    assert not any(mask.any() for mask in cond.null().keep.values())
    assert one.values["words"] is cond.values["words"]  # shapes never change
    with pytest.raises(ValueError, match="no condition"):
        cond.null("colour")


def test_drop_has_its_probability_and_never_restores():
    count = 4000
    kinds, sizes = torch.zeros(count, dtype=torch.long), torch.zeros(count)
    cond = al.Condition({"kind": kinds, "size": sizes}, {"kind": torch.arange(count) % 2 == 0})
    dropped = cond.drop({"kind": 0.3, "size": 0.0}, al.Noise.of(0, count))
    assert not dropped.keep["kind"][1::2].any() and dropped.keep["size"].all()
    rate = 1 - float(dropped.keep["kind"][::2].double().mean())
    assert abs(rate - 0.3) < 3 * (0.3 * 0.7 / (count / 2)) ** 0.5


def test_keys_are_dropped_apart_and_samples_whatever_their_neighbours():
    count = 2000
    cond = al.Condition({"a": torch.zeros(count), "b": torch.zeros(count)})
    both = cond.drop(0.5, al.Noise.of(0, count))
    agree = float((both.keep["a"] == both.keep["b"]).double().mean())
    assert abs(agree - 0.5) < 3 * 0.5 / count**0.5
    few = cond.select([7, 3]).drop(0.5, al.Noise.of(0, [7, 3]))
    assert torch.equal(few.keep["a"], both.keep["a"][[7, 3]])


def test_stacking_puts_one_batch_after_the_other():
    cond = pair()
    both = al.Condition.stack(cond.null(), cond)
    assert both.values["kind"].tolist() == [0, 1, 2, 0, 1, 2]
    assert both.keep["kind"].tolist() == [False] * 3 + [True, False, True]
    assert both.values["words"].batch == 6
    again = both.select(slice(3, None))
    assert torch.equal(again.values["words"]["tokens"], cond.values["words"]["tokens"])
    with pytest.raises(ValueError, match="different keys"):
        al.Condition.stack(cond, al.Condition({"kind": torch.zeros(3)}))


def test_moving_keeps_whole_numbers_whole():
    moved = pair().to(torch.float64)
    assert moved.values["kind"].dtype == torch.int64
    assert moved.values["words"].dtype == torch.float64
    assert moved.keep["kind"].dtype == torch.bool


def test_values_of_different_sizes_and_unknown_keys_are_errors():
    with pytest.raises(ValueError, match="differ in batch size"):
        al.Condition({"a": torch.zeros(2), "b": torch.zeros(3)})
    with pytest.raises(ValueError, match="keep"):
        al.Condition({"a": torch.zeros(2)}, {"b": torch.ones(2).bool()})


def test_facts_are_never_dropped():
    """Neither at random nor for guidance; wishes are."""
    cond = al.Condition({"kind": torch.tensor([0, 1])}).fixed(given=torch.ones(2, 3, 1))
    assert cond.droppable == ["kind"]
    for less in (cond.null(), cond.drop(1.0, al.Noise.of(0, 2)), cond.select(slice(0, 1)).null()):
        assert bool(less.keep["given"].all()) and not bool(less.keep["kind"].any())
        assert less.always == {"given"}
    assert cond.without("given").droppable == ["kind"] and not cond.without("given").always
