"""The registry: names, errors, plugins that fail, and what may be built from a configuration."""

import subprocess
import sys
import textwrap

import pytest

import anylatent as al
from anylatent.core.registry import store as registry
from anylatent.core.registry.building import build
from anylatent.core.registry.part import RegistryError
from anylatent.core.registry.store import part


@pytest.fixture
def clean():
    """Forgets what a test registers."""
    before = {group: dict(parts) for group, parts in registry._parts.items()}
    yield
    registry._parts.clear()
    registry._parts.update(before)


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
    @al.register("solver", "mine", parts={"inner": ("grid", "log_snr")})
    def mine(
        given: object, inner: al.Grid | None = None, number: float = 2.0, name: str | None = None
    ):
        """Mine.

        More."""
        return given, inner, number, name

    record = part("solver", "mine")
    assert list(record.settings()) == ["number", "name"] and record.summary == "Mine."
    node = {"name": "mine", "number": 3.0, "inner": {"name": "karras", "rho": 5.0}}
    given, inner, number, name = build("solver", node, given="run time", ignored=1)
    assert (given, number, name) == ("run time", 3.0, None) and inner.rho == 5.0


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
