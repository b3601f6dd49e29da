"""Run directories that somebody else has made: refused in a sentence or used as data, and nothing
outside of them changes."""

import os
import shutil
from itertools import cycle
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from anylatent.core.cli.main import main
from anylatent.core.runs.config import RunConfig, read
from anylatent.core.support.files import UserError
from anylatent.core.support.kinds import fits

CLIMBING = [
    "../../x",
    "/etc/passwd",
    "a/../../b",
    "a\0b",
    "x" * 5000,
    "${oc.env:HOME}",
    "${..}",
    "\x1b[2J",
]
COMMANDS = {
    "sample": ["n=1", "steps=1", "each=digit"],
    "evaluate": ["n=2", "steps=1"],
    "benchmark": ["n=2", "steps=1"],
    "invert": ["n=1", "steps=2"],
    "train": ["training.diffusion.steps=61"],
}
WRONG = [None, "text", -1, 2**63, [], {}, [1, "a"], {"name": "x"}, True, 1.5]


class Bench:
    """A copy of a run amid files that are to stay as they are, and commands for it."""

    def __init__(self, run, root, capsys):
        self.origin, self.root, self.capsys = run, root, capsys
        self.home = root / "outer" / "inner"
        self.run = self.home / "run"
        self.home.mkdir(parents=True)
        for folder in (root, root / "outer", self.home):
            (folder / "kept").write_text("kept")
        self.renew()
        self.plain = yaml.safe_load((run / "config.yaml").read_text())
        self.before = self.tree()

    def renew(self):
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.copytree(self.origin, self.run)

    def tree(self):
        """All but the run: names, contents, and whether folders."""
        paths = [p for p in self.root.rglob("*") if not p.is_relative_to(self.run)]
        return {str(p): p.read_bytes() if p.is_file() else None for p in paths}

    def refused(self, command, told=""):
        """Whether a command for the run, with cwd beside it, fails; in a sentence."""
        code = 0
        try:
            main([command, "run=run", *COMMANDS[command]])
        except SystemExit as stopped:
            code = stopped.code
        out, err = self.capsys.readouterr()
        assert code in (0, 1), told
        assert "Traceback" not in err and self.tree() == self.before, (told, err)
        if code:
            lines = [line for line in err.splitlines() if line.startswith("anylatent: ")]
            assert lines and len(lines[-1]) < 1500 and "\x1b" not in err, (told, err)
        return err if code else ""

    def with_value(self, path, value):
        """The run with another value at one place of its configuration."""
        self.renew()
        config = yaml.safe_load(yaml.safe_dump(self.plain))
        node = config
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
        (self.run / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture
def bench(digits, tmp_path, capsys, monkeypatch):
    found = Bench(digits, tmp_path / "root", capsys)
    monkeypatch.chdir(found.home)
    return found


def places(node, texts, path=()):
    """The places of all texts, or of all values, of lists the first two."""
    inner = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(inner)[: None if isinstance(node, dict) else 2]:
        if isinstance(value, str) or not texts:
            yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, texts, (*path, key))


def attempts(bench, texts, values, every):
    """Every value at every place, by one command after the other; of them one of so many."""
    pairs = [(place, value) for place in places(bench.plain, texts) for value in values]
    return list(zip(pairs, cycle(COMMANDS), strict=False))[::every]


@pytest.mark.parametrize(
    ("texts", "every"),
    [
        pytest.param(True, 83, id="climbing"),
        pytest.param(True, 1, id="climbing_everywhere", marks=pytest.mark.slow),
        pytest.param(False, 251, id="kinds"),
        pytest.param(False, 11, id="kinds_everywhere", marks=pytest.mark.slow),
    ],
)
def test_any_value_at_any_place(texts, every, bench):
    for (place, value), command in attempts(bench, texts, CLIMBING if texts else WRONG, every):
        bench.with_value(place, value)
        bench.refused(command, f"{command} {place} {value!r:.40}")


def test_the_bench_runs_what_is_in_order(bench):
    """Figures of so few samples are refused, after all else has been built and drawn: those of
    enough would take the features of all data."""
    for command in ("sample", "invert", "train"):
        assert not bench.refused(command)
    for command in ("evaluate", "benchmark"):
        bench.renew()
        assert "the figures need 4 pictures" in bench.refused(command)


# ---- configurations ---------------------------------------------------------------------------
BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
CONFIGS = {
    "aliases": (lambda text: BOMB + text, "alias"),
    "nested": (lambda text: "deep: " + "[" * 1000 + "]" * 1000 + "\n" + text, "nested deeper"),
    "tag": (lambda text: "x: !!python/object/apply:os.mkdir [bad]\n" + text, "can not be read"),
    "large": (lambda text: text + "#" * 50_000_000, "more than a configuration"),
    "facts": (lambda text: text[: text.index("\nfacts:")] + "\nfacts: null\n", "facts must be"),
}


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("command", ["sample", "train"])
def test_configurations_of_other_kinds(kind, command, bench):
    change, message = CONFIGS[kind]
    path = bench.run / "config.yaml"
    path.write_text(change(path.read_text()))
    assert message in bench.refused(command)


# ---- weights ----------------------------------------------------------------------------------
def changed(path, change):
    """Rewrites tensors of a file, with the metadata that it has."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors, next(name for name, x in tensors.items() if x.ndim > 1))
    save_file(tensors, path, metadata)


def integers(tensors, name):
    tensors[name] = tensors[name].to(torch.int32)


def flat(tensors, name):
    tensors[name] = tensors[name].flatten()


def lacking(tensors, name):
    del tensors[name]


def doubles(tensors, name):
    tensors[name] = tensors[name].double()


@pytest.mark.parametrize(
    ("change", "message"),
    [(integers, "torch.int32"), (flat, "has shape"), (lacking, "missing"), (doubles, "")],
)
@pytest.mark.parametrize("command", ["sample", "train"])
def test_weights_of_other_kinds(change, message, command, bench):
    changed(bench.run / "model.safetensors", change)
    error = bench.refused(command)
    assert message in error if message else not error


CHECKPOINTS = {
    "pickle": lambda path: torch.save({"x": Path("x")}, path),
    "list": lambda path: torch.save([torch.ones(2)], path),
    "other": lambda path: torch.save({"step": 60, "x": torch.ones(2)}, path),
    "bytes": lambda path: path.write_bytes(b"\0" * 100),
}


@pytest.mark.parametrize("kind", [*CHECKPOINTS, "optimisers", "names"])
def test_checkpoints_of_something_else(kind, bench):
    path = bench.run / "finished" / "diffusion.ckpt"
    if kind in CHECKPOINTS:
        CHECKPOINTS[kind](path)
    else:
        state = torch.load(path, weights_only=True)
        wrong = {"optimisers": {"optimizers": [1]}, "names": {"system": {"x": torch.ones(1)}}}
        torch.save({**state, **wrong[kind]}, path)
    assert "diffusion.ckpt" in bench.refused("train")


@pytest.mark.parametrize("command", ["evaluate", "invert", "train"])
@pytest.mark.parametrize("how", ["cut", "floats", "lacking", "bare"])
def test_items_of_something_else(how, command, bench):
    path = bench.run / "items.safetensors"
    if how == "cut":
        path.write_bytes(path.read_bytes()[:50])
    elif how == "bare":
        save_file(load_file(path), path)
    else:
        wrong = {"floats": torch.ones(3), "lacking": None}[how]
        tensors = {k: wrong if k == "train" else v for k, v in load_file(path).items()}
        save_file({k: v for k, v in tensors.items() if v is not None}, path, {"own": "yes"})
    assert "items.safetensors" in bench.refused(command)


# ---- kinds ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (1, int, True), (True, int, False), (1.0, int, False), (1, float, True),
        ("1", float, False), (None, int | None, True), ([1, 2], tuple[int, ...], True),
        ([1, "a"], tuple[int, ...], False), ([1], tuple[int, int], False), ("ab", list[str], False),
        ({"a": [1]}, dict[str, list[int]], True), ({"a": 1}, dict[str, list[int]], False),
        ("a", Path, True), (0, bool, False), (object(), os.PathLike, True),
    ],
)  # fmt: skip
def test_kinds(value, kind, expected):
    assert fits(value, kind) == expected


def test_a_configuration_of_a_run_has_parts_with_names():
    with pytest.raises(UserError, match="modality must be given as"):
        parts = ("modality conditioner autoencoder backbone schedule prediction times weighting "
                 "objective denoiser generator").split()  # fmt: skip
        model = {name: {"name": "x"} for name in parts} | {"modality": {}}
        read(RunConfig, {"model": model, "data": {}, "facts": {}}, "config.yaml")
