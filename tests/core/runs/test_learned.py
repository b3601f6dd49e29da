"""What a run has learned from is never what it is measured by, though its data may change."""

import pytest
import torch
from torch.utils.data import Dataset

import anylatent as al
from anylatent.core.runs.records import Learned, facts_of, measured, taught
from anylatent.core.runs.records.known_split import digests
from anylatent.core.support.files import UserError


class Rows(Dataset):
    def __init__(self, values):
        self.values = list(values)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return {"x": torch.tensor([float(self.values[index])]), "name": f"row {index}"}


class Numbers(al.Data):
    classes, shape = {}, (1,)

    def __init__(self, train, held):
        self.parts = list(train), list(held)

    @property
    def fingerprint(self):
        return f"numbers {self.parts}"

    def train(self):
        return Rows(self.parts[0])

    def held_out(self):
        return Rows(self.parts[1])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path / "cache"))


def numbers(dataset):
    return [int(dataset[i]["x"]) for i in range(len(dataset))]


def begun(run, data, *sources):
    found, items = taught(run, data, map(str, sources))
    items.save(run)
    return found


def test_a_digest_is_of_what_an_item_shows_not_of_its_place():
    one, other = digests(Numbers([1, 2, 3], [4])), digests(Numbers([3, 1, 2], [4]))
    assert sorted(one.train.tolist()) == sorted(other.train.tolist())
    assert torch.equal(one.held_out, other.held_out)
    assert len(set(one.every.tolist())) == 4


def test_the_same_data_are_themselves(tmp_path):
    data = Numbers(range(8), range(8, 10))
    assert begun(tmp_path, data) is data and measured(tmp_path, data) is data
    assert taught(tmp_path, data)[0] is data


def test_items_in_other_places_are_no_change(tmp_path):
    """Nor is another split of them one: that of the run counts."""
    begun(tmp_path, Numbers(range(8), [8, 9]))
    found = measured(tmp_path, Numbers([3, 1, 2, 0, 4, 9, 7, 6], [5, 8]))
    assert sorted(numbers(found.held_out())) == [8, 9]
    assert sorted(numbers(found.train())) == list(range(8))


def test_what_was_learned_from_is_not_measured_by(tmp_path):
    """Items were added, and the split of now holds some out that were learned from."""
    begun(tmp_path, Numbers(range(8), [8, 9]))
    now = Numbers([10, 11, 12, 8, 2, 3, 4], [9, 0, 1, 13])
    with pytest.warns(UserWarning, match="4 items added and 3 removed.* by the 2 that were"):
        found = measured(tmp_path, now)
    assert sorted(numbers(found.held_out())) == [8, 9]
    assert sorted(numbers(found.train())) == [0, 1, 2, 3, 4]


def test_training_on_other_data_is_refused_or_accepted(tmp_path):
    begun(tmp_path, Numbers(range(8), [8, 9]))
    now = Numbers([10, 11, 8, 2, 3], [9, 0, 1, 12])
    with pytest.raises(UserError, match="3 items added and 4 removed.*data.changed=accept"):
        facts_of(tmp_path, now, accept=False)
    assert facts_of(tmp_path, now, accept=True) == now.facts
    found, items = taught(tmp_path, now)
    assert sorted(numbers(found.held_out())) == [8, 9, 12]
    assert sorted(numbers(found.train())) == [0, 1, 2, 3, 10, 11]
    items.save(tmp_path)
    for again in (taught(tmp_path, now)[0], measured(tmp_path, now)):
        assert sorted(numbers(again.held_out())) == [8, 9, 12], "without being asked again"
        assert sorted(numbers(again.train())) == [0, 1, 2, 3, 10, 11]


def test_what_a_model_comes_from_counts_and_what_that_comes_from(tmp_path):
    first, second, third = (tmp_path / name for name in "abc")
    begun(first, Numbers(range(4), [4, 5]))
    with pytest.warns(UserWarning, match="1 of 2 held-out items were learned from"):
        found = begun(second, Numbers([6, 7], [0, 8]), first)
    assert numbers(found.held_out()) == [8]
    with pytest.warns(UserWarning, match="2 of 3 held-out items"):
        found = begun(third, Numbers([20], [1, 6, 9]), second)
    assert numbers(found.held_out()) == [9]
    assert numbers(measured(third, Numbers([20], [1, 6, 9])).held_out()) == [9]
    with pytest.raises(UserError, match="all items that are held out were learned from"):
        begun(tmp_path / "d", Numbers([20], [1, 2]), second)


def test_nothing_that_was_held_out_is_left(tmp_path):
    begun(tmp_path, Numbers(range(8), [8, 9]))
    with pytest.raises(UserError, match="none of the 2 items"):
        measured(tmp_path, Numbers(range(8), [1, 30]))


def test_files_of_something_else(tmp_path):
    from safetensors.torch import save_file

    save_file({"train": torch.zeros(2)}, tmp_path / "items.safetensors", {"fingerprint": "x"})
    with pytest.raises(UserError, match="lacks 'held_out'"):
        Learned.load(tmp_path)
