"""The table of what is registered: made once, made anew when any of it changes."""

import os
import subprocess
import sys
import textwrap

import pytest

from anylatent.core.registry import groups, names, table

PLUGIN = """
import anylatent as al

@al.register("weighting", "mine")
class Mine(al.Weighting):
    \"\"\"SUMMARY\"\"\"
    def __init__(self, power: float = 2.0) -> None: ...
    def data(self, log_snr, measure): return log_snr
"""
LIST = """
import sys
from anylatent.core.cli.main import main
main(["list", "weighting"])
print("imported" if "torch" in sys.modules else "read")
"""


@pytest.fixture
def listed(tmp_path):
    """`anylatent list weighting` in a process of its own, with a plugin that says of itself what it
    is told to; and whether it imported torch for that."""
    plugin, kept = tmp_path / "my_plugin.py", tmp_path / "cache"

    def run(summary=None, source=PLUGIN):
        if summary is not None:
            plugin.write_text(source.replace("SUMMARY", summary))
        told = {"ANYLATENT_PLUGINS": "my_plugin", "ANYLATENT_CACHE": str(kept)}
        told["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.getcwd()])
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(LIST)],
            capture_output=True, text=True, timeout=300, env={**os.environ, **told},
        )  # fmt: skip
        assert not done.returncode, done.stderr
        *lines, last = done.stdout.splitlines()
        return lines, last == "imported", done.stderr

    run.cache = kept
    return run


def test_it_is_made_once_and_anew_when_a_plugin_is_edited(listed):
    first, imported, err = listed("A first one.")
    assert imported and not err and "  mine          A first one." in first
    assert "                settings: power=2.0" in first
    assert listed() == (first, False, ""), "the same lines, without importing anything"
    second, imported, _ = listed("Another one!")
    assert imported and "  mine          Another one!" in second
    assert listed() == (second, False, "")


def test_a_damaged_one_is_made_anew_in_silence(listed):
    first, _, _ = listed("Some.")
    (path,) = listed.cache.glob("parts-*.txt")
    whole = path.read_bytes()
    for damaged in (b"", b"{}", whole[:-9], whole.replace(b"Some.", b"Other")):
        path.write_bytes(damaged)
        assert listed() == (first, True, "")
        assert listed() == (first, False, "")


def test_none_is_kept_of_a_plugin_that_fails_or_where_none_can_be(listed):
    for _ in range(2):
        lines, imported, err = listed("", "raise RuntimeError('broken')")
        assert imported and "broken" in err and not any("mine" in line for line in lines)
    assert not list(listed.cache.glob("parts-*"))
    listed.cache.rename(listed.cache.with_name("other"))
    listed.cache.write_text("a file where the cache should be")
    lines, imported, err = listed("Some.")
    assert imported and "  mine          Some." in lines and "warning" in err


def test_a_reader_that_has_seen_enough_ends_it_in_silence(listed):
    command = f"'{sys.executable}' -m anylatent.core.cli.main list | head -1"
    env = {**os.environ, "ANYLATENT_CACHE": str(listed.cache)}
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=env)
    assert (done.stdout, done.stderr) == ("adversary\n", "")


def test_parts_of_this_process_alone_are_in_it():
    found = table()
    assert list(found) == groups()
    for group, rows in found.items():
        assert list(rows.parts) == names(group)
    assert found["solver"].parts["adams"].settings == {"order": "4", "corrector": "True"}
    assert found["objective"].parts["denoising"].parts["masking"] == ("masking", "none")
