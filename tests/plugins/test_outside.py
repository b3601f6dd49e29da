"""A plugin of another project: built, installed into a temporary environment, and used there."""

import json
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from anylatent.core.runs.run import RunDirectory
from tests.forks import forks

HERE = Path(__file__).parent
FEW = [
    "training.autoencoder.steps=4",
    "training.autoencoder.batch=8",
    "training.diffusion.steps=4",
    "training.diffusion.batch=8",
    "pictures.every=4",
    "pictures.samples=4",
    "trainer.accelerator=cpu",
]


@dataclass
class Environment:
    python: Path
    folder: Path

    def __call__(self, *arguments, plugins="", code=None):
        """Runs anylatent, or code, with what is installed in this environment."""
        path = HERE / "outside" if plugins else ""
        return forks(plugins, path, self.python)(self.folder, *arguments, code=code)

    def fresh(self, *arguments, path):
        """Runs anylatent in a process of its own that finds what lies in a folder, too."""
        environment = {
            **os.environ,
            "ANYLATENT_PLUGINS": "",
            "PYTHONPATH": str(path),
            "OMP_NUM_THREADS": "1",
        }
        command = [str(self.python), "-m", "anylatent.core.cli.main", *map(str, arguments)]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=900
        )


def make_environment(folder):
    """A virtual environment that sees the packages of this one, without pip: half a second."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    (inside,) = (folder / "env").glob("lib/python*/site-packages")
    here = sysconfig.get_paths()["purelib"]
    (inside / "outer.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    return Environment(folder / "env" / "bin" / "python", folder)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return make_environment(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    environment = make_environment(tmp_path_factory.mktemp("outside"))
    wheels = environment.folder / "wheels"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ["wheel", "-q", "--no-build-isolation", "--no-deps", "-w", wheels, HERE / "outside"]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = wheels.glob("outside_waves-*.whl")
    install = ["--python", environment.python, "install", "-q", "--no-index", "--no-deps", wheel]
    subprocess.run([*pip, *install], check=True)
    return environment


def fine(result):
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def failed(result):
    assert result.returncode not in (0, 130), result.stdout
    assert "Traceback" not in result.stderr
    return result.stderr


def test_list_has_its_parts(installed, bare):
    own = {"perceptron": "backbone", "waves": "modality", "pitch": "conditioner"}
    listed, without = fine(installed("list")), fine(bare("list"))
    for name, group in own.items():
        assert f"  {name} " in listed and f"  {name} " not in without
        assert f"  {name} " in fine(installed("list", group)) if name == "perceptron" else True
    assert "A residual perceptron" not in without
    assert "width=128, blocks=3" in fine(installed("list", "backbone"))


def test_own_contract_tests_pass(installed):
    tests = HERE / "outside" / "tests"
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", tests, "-c", os.devnull]
    code = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    assert " passed" in fine(installed(*options, tests, code=code))


def test_modality_trains_samples_and_is_measured(installed):
    run = installed.folder / "waves"
    train = ["train", "modality=waves", "backbone=perceptron", "backbone.width=16", f"run={run}"]
    fine(installed(*train, *FEW))
    assert RunDirectory(run).stages().done[-1] == "diffusion"
    assert (run / "pictures" / "samples_000004.png").stat().st_size
    fine(installed("sample", f"run={run}", "n=3", "steps=2", "cond.pitch=2"))
    for i in range(3):
        values = (run / "samples" / f"0_{i:05d}.csv").read_text().split()
        assert len([float(value) for value in values]) == 32
    assert (run / "samples" / "contact_sheet.png").stat().st_size
    fine(installed("evaluate", f"run={run}", "n=16", "steps=2"))
    figures = json.loads((run / "evaluation.json").read_text())
    assert set(figures["samples"]["samples"]) == {"purity", "amplitude", "pitch"}
    message = failed(installed("sample", f"run={run}", "n=1", "steps=2", "cond.pitch=9"))
    assert "from 1 to 4" in message


def test_backbone_serves_another_modality(installed):
    run = installed.folder / "digits"
    settings = ["data=mnist", "data.size=16", "autoencoder.channels=8", "autoencoder.blocks=1"]
    chosen = ["conditioner=label", "backbone=perceptron", "backbone.width=16", "pictures.every=0"]
    fine(installed("train", f"run={run}", *FEW, *settings, *chosen))
    fine(installed("sample", f"run={run}", "n=2", "steps=2", "cond.digit=7"))
    assert len(list((run / "samples").glob("0_*.png"))) == 2


def test_without_installation(bare):
    listed = fine(bare("list", "modality", plugins="outside_waves"))
    assert "waves" in listed and "image" in listed
    run = bare.folder / "waves"
    train = ["train", "modality=waves", "backbone.width=16", f"run={run}", *FEW]
    fine(bare(*train, plugins="outside_waves"))
    message = failed(bare("sample", f"run={run}", "n=1", "steps=2"))
    assert "waves" in message and "image" in message  # the run needs the plugin; these are there


def test_unknown_modality_lists_what_exists(bare):
    message = failed(bare("train", "modality=waves", "run=none"))
    assert "modality/waves" in message and "image" in message


def write_plugin(folder, name, text, entry_point=True):
    """An installed distribution in `folder`, with one module."""
    (folder / f"{name}.py").write_text(text)
    about = folder / f"{name}-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[anylatent.plugins]\n{name} = {name}\n")


def test_broken_plugin_is_one_warning_and_the_rest_works(bare, tmp_path):
    write_plugin(tmp_path, "broken_plugin", "import no_such_library\n")
    result = bare.fresh("list", "solver", path=tmp_path)
    assert "heun" in fine(result)
    assert result.stderr.count("broken_plugin (") + result.stderr.count("'broken_plugin'") == 1
    assert result.stderr.count("No module named 'no_such_library'") == 1
    message = failed(bare.fresh("train", "backbone=mine", "run=none", path=tmp_path))
    about_part = message[message.index("backbone/mine") :]
    assert "unet" in about_part
    assert "broken_plugin" in about_part and "No module named 'no_such_library'" in about_part


DOUBLE = '''
import anylatent as al

@al.register("solver", "heun")
class Heun(al.Solver):
    """Another."""
'''


def test_duplicate_name_is_an_error_naming_both(bare, tmp_path):
    write_plugin(tmp_path, "second_heun", DOUBLE)
    message = failed(bare.fresh("list", path=tmp_path))
    assert "solver=heun" in message
    assert "second_heun.Heun" in message and "anylatent.core.solvers.heun.Heun" in message
