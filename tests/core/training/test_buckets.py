"""Batches of nearly equal lengths: still a function of the step, with hardly any padding."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from anylatent.core.latents.noise import Noise
from anylatent.core.training.step_sampler import StepSampler


def lengths_of(size, most=20, seed=0):
    return torch.randint(1, most + 1, (size,), generator=torch.Generator().manual_seed(seed))


def steps(lengths, batch=4, count=12, start=0, seed=0, rank=0, world=1):
    return list(StepSampler(len(lengths), batch, count, start, seed, rank, world, lengths))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.sampled_from([2, 4, 8]), st.integers(0, 11), st.integers(0, 5))
def test_a_run_resumes_anywhere(size, batch, start, seed):
    lengths = lengths_of(size)
    whole = steps(lengths, batch, 12, 0, seed)
    assert steps(lengths, batch, 12, start, seed) == whole[start:]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.sampled_from([1, 2, 4]), st.integers(0, 5))
def test_the_joint_batch_is_the_union_over_processes(size, world, seed):
    lengths = lengths_of(size)
    joint = steps(lengths, 4, 12, 0, seed)
    shares = [steps(lengths, 4, 12, 0, seed, rank, world) for rank in range(world)]
    for k, batch in enumerate(joint):
        assert [index for share in shares for index in share[k]] == batch


def test_a_pass_has_every_item_once_but_for_a_remainder_that_changes():
    lengths = lengths_of(103)
    passes = [steps(lengths, 10, (k + 1) * 10, k * 10) for k in range(12)]
    left = []
    for batches in passes:
        drawn = [index for batch in batches for index in batch]
        assert len(drawn) == 100 and len(set(drawn)) == 100
        left.append(frozenset(set(range(103)) - set(drawn)))
    assert len(set(left)) > 8 and len(frozenset.union(*left)) > 20
    assert passes[0] != passes[1] and steps(lengths, 10, 10, seed=1) != passes[0]


def test_batches_have_one_length_but_where_two_lengths_meet():
    lengths = lengths_of(5000, 20)
    batches = [lengths[torch.tensor(batch)] for batch in steps(lengths, 25, 200)]
    mixed = [batch for batch in batches if batch.min() != batch.max()]
    assert len(batches) == 200 and len(mixed) <= 19
    assert all(int(batch.max() - batch.min()) == 1 for batch in mixed)
    longest = torch.stack([batch.max() for batch in batches]).double()
    place = torch.arange(200.0).double()
    assert abs(float(torch.corrcoef(torch.stack([longest, place]))[0, 1])) < 0.25  # shuffled


def test_equal_lengths_do_not_keep_neighbours_together():
    same = torch.full((1000,), 7)
    batch = torch.tensor(steps(same, 100, 1)[0])
    assert batch.sort().values.diff().max() > 20 and not torch.equal(batch, batch.sort().values)


def test_without_lengths_the_order_is_the_permutation_of_the_pass():
    drawn = [i for batch in StepSampler(50, 10, 10, 0, 3, 0, 1) for i in batch]
    wanted = [Noise([(3, k)]).uniform(50)[0].argsort().tolist() for k in range(2)]
    assert drawn == wanted[0] + wanted[1]


def test_data_smaller_than_a_batch_are_drawn_as_without_lengths():
    plain = list(StepSampler(3, 8, 5, 0, 0, 0, 1))
    assert steps(lengths_of(3), 8, 5) == plain and [len(batch) for batch in plain] == [8] * 5


def test_lengths_of_other_data_are_an_error():
    with pytest.raises(ValueError, match=r"lengths of shape \(4,\) for 5 items"):
        StepSampler(5, 2, 1, 0, 0, 0, 1, lengths_of(4))
