"""A list of metrics: their order, rows that several have, what goes wrong; and their contract."""

import pytest

import anylatent as al
from anylatent.core.registry import RegistryError
from anylatent.core.registry import store as registry
from anylatent.core.support.files import UserError
from tests.core.modality.test_outputs import Marks


class Sum(al.Metric):
    """The sum, times a factor, and that of the data."""

    place = 1

    def __init__(self, data, *, factor: float = 1.0):
        self.data, self.factor = data, factor

    @property
    def notes(self):
        return ["sums are sums"]

    def samples(self, outputs, columns):
        return {"sum": self.factor * float(outputs.numbers.sum())}

    def baselines(self, conditions=()):
        return {"held-out": self.samples(self.data, {}), "nothing": {"sum": 0.0}}


class Count(al.Metric):
    """How many, of samples and of what is restored."""

    place = 0

    def samples(self, outputs, columns):
        return {"count": float(len(outputs)), "asked": float(len(columns))}

    def reconstructions(self, originals, outputs):
        return {"lost": float(len(originals) - len(outputs))}

    def baselines(self, conditions=()):
        return {"published": {"count": 7.0}, "held-out": {"count": 3.0}}


class Picky(al.Metric):
    """For data of three alone."""

    @classmethod
    def applies(cls, modality, data):
        return len(data) == 3

    def samples(self, outputs, columns):
        return {"picky": 1.0}


class Pictures(al.Metric):
    """For pictures alone."""

    modality = "image"


class Nobody(al.Metric):
    """For a modality that is not installed."""

    modality = "smell"


DATA = Marks([1.0, 2.0])


@pytest.fixture
def registered():
    """These metrics alone."""
    al.names("metric")
    before = registry._parts["metric"]
    registry._parts["metric"] = {}
    kinds = {"sum": Sum, "count": Count, "picky": Picky, "pictures": Pictures, "nobody": Nobody}
    for name, kind in kinds.items():
        al.register("metric", name)(kind)
    yield
    registry._parts["metric"] = before


def kinds(*how):
    return [type(metric) for metric in al.Metrics.of(*how).metrics]


def test_rows_of_several_metrics_are_one(registered):
    found = al.Metrics.of(None, DATA)
    assert [type(metric) for metric in found.metrics] == [Count, Sum]  # by their place
    row = found.samples(Marks([1.0, 5.0]), {"a": 1})
    assert row == {"count": 2, "asked": 1, "sum": 6} and list(row) == ["count", "asked", "sum"]
    assert found.reconstructions(Marks([1, 2]), Marks([1])) == {"lost": 1}
    rows = found.baselines()
    assert rows == {
        "published": {"count": 7},
        "held-out": {"count": 3, "sum": 3},
        "nothing": {"sum": 0},
    }
    assert list(rows) == ["published", "held-out", "nothing"]
    assert found.notes == ["sums are sums"]


def test_a_metric_says_what_it_is_for(registered):
    image, text = (al.get("modality", name)() for name in ("image", "text"))
    assert kinds(text, DATA) == [Count, Sum]
    assert kinds(text, Marks([1, 2, 3])) == [Count, Sum, Picky]
    assert kinds(image, DATA) == [Count, Sum, Pictures]
    assert kinds(type("Mine", (type(image),), {})(), DATA) == [Count, Sum, Pictures]


def test_metrics_are_chosen_by_name_and_may_have_settings(registered):
    assert kinds(None, DATA, ["sum", "count", "sum"]) == [Count, Sum]
    for chosen in (["sum"], "sum", [{"name": "sum"}], {"name": "sum"}):
        assert al.Metrics.of(None, DATA, chosen).samples(Marks([1.0]), {}) == {"sum": 1}
    mixed = al.Metrics.of(None, DATA, ["count", {"name": "sum", "factor": 3.0}])
    assert mixed.samples(Marks([1.0]), {}) == {"count": 1, "asked": 0, "sum": 3}
    assert al.Metrics.of(None, DATA, []).samples(Marks([1.0]), {}) == {}
    with pytest.raises(UserError, match=r"\[picky,none\]: not .*choose among count, sum"):
        al.Metrics.of(None, DATA, ["sum", "picky", "none"])
    with pytest.raises(UserError, match=r"metrics=\[3\]: not for"):
        al.Metrics.of(None, DATA, [3])
    with pytest.raises(RegistryError, match="no setting colour; its settings are factor"):
        al.Metrics.of(None, DATA, [{"name": "sum", "colour": 1}])


def test_a_figure_has_one_owner():
    twice = al.Metrics([Count(), Count()])
    for figures in (lambda: twice.samples(DATA, {}), twice.baselines):
        with pytest.raises(UserError, match="two metrics give the figure 'count': Count and Count"):
            figures()
    with pytest.raises(UserError, match="two metrics give the figure 'lost'"):
        twice.reconstructions(DATA, DATA)


def test_what_is_no_metric_is_refused(registered):
    with pytest.raises(RegistryError, match="is no Metric"):
        al.register("metric", "number")(int)
    al.register("metric", "function")(lambda: None)
    with pytest.raises(RegistryError, match="metric=function must be a subclass of"):
        al.Metrics.of(None, DATA)


# ---- the contract -----------------------------------------------------------------------------
class Whole(al.Metric):
    def samples(self, outputs, columns):
        return {"n": len(outputs)}


class Meaningless(al.Metric):
    def samples(self, outputs, columns):
        return {"n": float("nan")}


class Alone(Count):
    def unrestored(self, originals):
        return {"count": 1.0}


class Silent(Count):
    notes = "one sentence"


class Careless(al.Metric):
    def samples(self, outputs, columns):
        outputs.numbers.zero_()
        return {"n": 1.0}


class Greedy(al.Metric):
    def samples(self, outputs, columns):
        return {"n": float(len(columns.pop("a", "")) * 0)}


class Other(al.Metric):
    count = 0

    def samples(self, outputs, columns):
        self.count += 1
        return {"n": float(self.count)}


WRONG = {
    Whole: "'n' of samples is 3, not a float",
    Meaningless: "leave out what has no meaning",
    Alone: "'count'.* of data not restored, but not of reconstructions",
    Silent: "notes are a list of sentences",
    Careless: "changes the outputs",
    Greedy: "changes the outputs or the columns",
    Other: "other figures each time",
    al.Metric: "no figures",
}


def test_the_contract_holds():
    al.testing.check_metric(Sum(DATA), Marks([1.0, 2.0]), {"a": [1, 2]})
    al.testing.check_metric(Count(), Marks([1.0, 2.0]), {})


@pytest.mark.parametrize("kind", WRONG)
def test_the_contract_fails(kind):
    with pytest.raises(AssertionError, match=WRONG[kind]):
        al.testing.check_metric(kind(), Marks([1.0, 2.0, 3.0]), {"a": [1, 2, 3]})
