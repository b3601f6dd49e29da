"""The registry: names, errors, plugins that fail, and what may be built from a configuration."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import anylatent as al
from anylatent.core.registry import declarations
from anylatent.core.registry import store as registry
from anylatent.core.registry.building import build
from anylatent.core.registry.part import RegistryError
from anylatent.core.registry.store import part


@pytest.fixture
def clean():
    """Forgets what a test registers."""
    before = {group: dict(parts) for group, parts in registry._parts.items()}
    groups, facts = dict(declarations._groups), dict(declarations._facts)
    yield
    for store, kept in (
        (registry._parts, before),
        (declarations._groups, groups),
        (declarations._facts, facts),
    ):
        store.clear()
        store.update(kept)


def python(code, **environment):
    import os

    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )


def test_the_names_that_the_design_promises():
    wanted = {
        "schedule": {"vp", "cosine", "edm", "flow", "table", "shifted"},
        "prediction": {"data", "noise", "v", "score", "velocity", "edm"},
        "solver": {"euler", "heun", "ddim", "ddpm", "dpmpp_2m"},
        "grid": {"uniform", "log_snr", "karras"},
        "times": {"uniform", "low_discrepancy", "log_normal", "logit_normal"},
        "weighting": {"simple", "elbo", "edm", "min_snr", "sigmoid"},
        "guidance": {"classifier_free"},
    }
    for group, names in wanted.items():
        assert names <= set(al.names(group)), group


def test_unknown_names_and_groups_say_what_there_is():
    with pytest.raises(RegistryError, match="no solver 'huen'; there are .*heun"):
        al.get("solver", "huen")
    with pytest.raises(RegistryError, match="no group 'solvers'; there are .*solver"):
        al.names("solvers")


def test_a_duplicate_names_both(clean):
    @al.register("solver", "mine")
    def one():
        """One."""

    al.register("solver", "mine")(one)  # the same part again is no conflict
    with pytest.raises(RegistryError, match="mine.*one.*two"):

        @al.register("solver", "mine")
        def two():
            """Two."""


def test_settings_are_the_plain_defaults(clean):
    al.group("mine", object, offers={"given": object})

    @al.register("mine", "one", parts={"inner": ("grid", "log_snr")})
    def one(
        given: object, inner: al.Grid | None = None, number: float = 2.0, name: str | None = None
    ):
        """Mine.

        More."""
        return given, inner, number, name

    record = part("mine", "one")
    assert list(record.settings()) == ["number", "name"] and record.summary == "Mine."
    node = {"name": "one", "number": 3.0, "inner": {"name": "karras", "rho": 5.0}}
    given, inner, number, name = build("mine", node, given="run time", ignored=1)
    assert (given, number, name) == ("run time", 3.0, None) and inner.rho == 5.0


def test_a_part_that_asks_for_what_nobody_gives_is_refused(clean):
    with pytest.raises(RegistryError, match="asks for spce.*offered spec, conditions, output"):

        @al.register("backbone", "mine")
        def mine(spce: al.LatentSpec | None = None, width: int = 8):
            """Mine."""

    assert "mine" not in al.names("backbone")
    with pytest.raises(RegistryError, match="asks for others.*solver is offered nothing"):

        @al.register("solver", "mine")
        def more(**others: float):
            """Mine."""


def test_what_data_say_of_themselves_is_offered_once_it_is_declared(clean):
    def mine(hue: float | object = None):
        """Mine."""
        return hue

    with pytest.raises(RegistryError, match=r"asks for hue.*shape.*anylatent\.facts"):
        al.register("conditioner", "mine")(mine)
    al.facts(hue=float)
    al.register("conditioner", "mine")(mine)
    assert build("conditioner", {"name": "mine"}, hue=0.5) == 0.5
    with pytest.raises(RegistryError, match="asks for hue"):
        al.register("solver", "mine")(mine)  # a solver is told nothing of the data


def test_a_part_is_of_its_groups_kind(clean):
    with pytest.raises(RegistryError, match="no group 'slover'.*solver.*anylatent.group"):
        al.register("slover", "mine")
    with pytest.raises(RegistryError, match="is no Solver"):

        @al.register("solver", "mine")
        class Mine:
            """Mine."""

    with pytest.raises(RegistryError, match="two groups are named solver"):
        al.group("solver", object)


def test_a_maker_builds_the_inner_part_with_what_its_owner_gives_it(clean):
    al.group("outer", object, offers={"spec": al.LatentSpec})
    al.group("inner", object, offers={"spec": al.LatentSpec})

    @al.register("inner", "leaf")
    def leaf(spec: al.LatentSpec | None = None, depth: int = 2):
        """A leaf."""
        return spec, depth

    @al.register("outer", "twice", parts={"image": ("inner", "leaf")})
    def twice(image: al.Maker[tuple], spec: al.LatentSpec | None = None):
        """Two leaves, one of them of a space of its own."""
        return image(), image(spec="other")

    node = {"name": "twice", "image": {"name": "leaf", "depth": 6}}
    assert build("outer", node, spec="whole") == (("whole", 6), ("other", 6))
    with pytest.raises(RegistryError, match="no inner 'laef'"):
        build("outer", {"name": "twice", "image": {"name": "laef"}}, spec="whole")
    with pytest.raises(RegistryError, match="no setting dpeth"):
        build("outer", {"name": "twice", "image": {"name": "leaf", "dpeth": 6}}, spec="whole")


def test_a_mistyped_setting_says_what_there_is():
    with pytest.raises(RegistryError, match="no setting chrun; its settings are churn"):
        build("solver", {"name": "heun", "chrun": 3})
    with pytest.raises(RegistryError, match="name: "):
        build("solver", "heun")


def test_nothing_but_registered_parts_is_built():
    for node in ({"_target_": "os.system", "command": "true"}, {"name": "os.system"}):
        with pytest.raises(RegistryError):
            build("solver", node)


def test_a_plugin_that_fails_is_one_warning_and_the_rest_works(tmp_path):
    (tmp_path / "broken_plugin.py").write_text("import no_such_module_anywhere\n")
    (tmp_path / "good_plugin.py").write_text(
        "import anylatent as al\n\n@al.register('solver', 'good')\ndef good():\n    '''Good.'''\n"
    )
    done = python(
        """
        import warnings
        import anylatent as al
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert "good" in al.names("solver") and "heun" in al.names("solver")
        mine = [str(w.message) for w in caught if "broken_plugin" in str(w.message)]
        assert len(mine) == 1 and "no_such_module_anywhere" in mine[0], mine
        try:
            al.get("solver", "of_the_broken_one")
        except LookupError as error:
            assert "broken_plugin" in str(error) and "no_such_module" in str(error), error
        else:
            raise SystemExit("no error")
        """,
        ANYLATENT_PLUGINS="broken_plugin,good_plugin",
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr


def test_every_part_has_a_line_of_documentation_and_constructs_with_its_defaults():
    plain = ("schedule", "prediction", "solver", "grid", "times", "weighting", "objective")
    for group in registry.groups():
        for name in al.names(group):
            summary = part(group, name).summary
            assert summary and len(summary) < 120, f"{group}={name}: {summary!r}"
            if group in plain:
                al.get(group, name)()


def test_a_path_is_a_text_in_configurations_and_a_path_to_the_part(clean):
    class Reader(al.Weighting):
        """Reads."""

        def __init__(self, file: Path = Path("a b"), other: Path | None = None) -> None:
            self.found = file, other

        def data(self, log_snr, measure):
            return log_snr

    al.register("weighting", "reader")(Reader)
    record = part("weighting", "reader")
    assert record.settings() == {"file": (str, "a b"), "other": (str | None, None)}
    assert build("weighting", {"name": "reader"}).found == (Path("a b"), None)
    told = {"name": "reader", "file": "c", "other": "ü/[d]"}
    assert build("weighting", told).found == (Path("c"), Path("ü/[d]"))


def test_a_part_that_fails_is_one_sentence_and_an_error_of_its_own_stays(clean):
    class Failing(al.Weighting):
        """Divides."""

        def __init__(self, parts: int = 1) -> None:
            if parts < 0:
                raise ValueError("parts must be at least 1")
            self.share = 1 // parts

        def data(self, log_snr, measure):
            return log_snr

    al.register("weighting", "failing")(Failing)
    with pytest.raises(RegistryError, match="weighting=failing can't be built with {'parts': 0}"):
        build("weighting", {"name": "failing", "parts": 0})
    with pytest.raises(ValueError, match="^parts must be at least 1$"):
        build("weighting", {"name": "failing", "parts": -1})
    assert build("weighting", {"name": "failing", "parts": 1}).share == 1
