"""A run knows its data by what they show: moved, told of otherwise, added to; through commands."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from anylatent.core.runs.records import Learned
from anylatent.core.support.plain_yaml import load_yaml
from tests.cli import QUICK, TINY, launch, rows, steps

PLAIN = [item for item in TINY if not item.startswith("data")]
FEW = [*PLAIN, *QUICK, *steps(2, 2), "data=folder", "data.size=16", "data.held_out=0.2", "steps=2"]
TEXT = [
    "modality=text", "data=text_file", "data.vocabulary=300", "backbone.width=32",
    "backbone.depth=1", "backbone.heads=2", "pictures.every=0", "trainer.accelerator=cpu",
    "training.autoencoder.batch=16", "training.diffusion.batch=16", "steps=2",
]  # fmt: skip


def picture(path, seed):
    numbers = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numbers).save(path)


@pytest.fixture(scope="module")
def began(tmp_path_factory):
    root = tmp_path_factory.mktemp("began")
    for seed in range(40):
        picture(root / "p" / ("red" if seed % 2 else "blue") / f"{seed:03}.png", seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        launch("train", "run=r", *FEW, "data.path=p", "solver=ddpm")
    return root


@pytest.fixture
def here(began, tmp_path, monkeypatch):
    """A copy of the run and its data, and the folder that it is in."""
    for name in ("p", "r"):
        shutil.copytree(began / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def on(cli, number, *more):
    return cli("train", "run=r", f"training.diffusion.steps={number}", *more)


def test_data_that_have_moved_are_found_again(here, cli, fails):
    told = Learned.load(here / "r")
    shutil.move("p", "moved")
    for command in (["train", "run=r", "training.diffusion.steps=3"], ["evaluate", "run=r", "n=4"]):
        assert "data.path=p, where there is nothing, as seen from here" in fails(*command)
    code, _, err = cli("invert", "run=r", "n=100", "steps=2", "data.path=moved")
    assert code == 0, err
    inverted = load_file("r/inversion/noise.safetensors")
    assert len(next(iter(inverted.values()))) == len(told.held_out), "none that it learned from"
    code, _, err = on(cli, 3, "data.path=moved")
    assert code == 0, err
    assert len(rows(here / "r" / "logs" / "diffusion.csv")) > 0
    assert on(cli, 4)[0] == 0, "it knows by now where they are"
    shutil.copytree("moved", "other")
    for seed, path in enumerate(sorted((here / "other").rglob("*.png"))):
        picture(path, 1000 + seed)
    error = fails("train", "run=r", "training.diffusion.steps=5", "data.path=other")
    assert "40 items added and 40 removed" in error and on(cli, 5)[0] == 0


def test_other_classes_are_a_change_and_other_folders_of_classes_are_refused(here, cli, fails):
    for number in (1, 3):
        shutil.move(f"p/red/{number:03}.png", f"p/blue/{number:03}.png")
    longer = ("train", "run=r", "training.diffusion.steps=3")
    error = fails(*longer)
    assert "2 items with other classes or texts. data.changed=accept" in error
    assert "added" not in error
    assert on(cli, 3, "data.changed=accept")[0] == 0
    assert on(cli, 4)[0] == 0, "without being asked again"
    picture(here / "p" / "green" / "new.png", 77)
    assert "1 items added and 0 removed" in fails(*longer[:2], "training.diffusion.steps=5")
    error = fails(*longer[:2], "training.diffusion.steps=5", "data.changed=accept")
    assert "by now classes is {'category': ['blue', 'green', 'red']}" in error
    assert "from=r" in error


def test_what_the_base_learned_from_is_recognised_in_another_size(here, cli):
    batches = [item for item in FEW if item.startswith("training")]
    told = ["from=r", *batches, "pictures.every=0", "data.seed=5"]
    known, found = set(Learned.load(here / "r").train.tolist()), []
    for run, size in (("same", 16), ("big", 32)):
        code, _, err = cli("train", *told, f"run={run}", f"data.size={size}")
        found += [line for line in err.splitlines() if "learned from by the model" in line]
        assert code == 0 and not known & set(Learned.load(here / run).held_out.tolist())
    assert len(found) == 2 and found[0] == found[1]


def test_pictures_of_a_base_from_before_can_not_be_recognised_and_that_is_told(here, cli):
    items = load_file("r/items.safetensors")
    told = {"fingerprint": "of before", "own": "yes"}
    save_file(items, "r/items.safetensors", told)
    batches = [item for item in FEW if item.startswith("training")]
    code, _, err = cli("train", "from=r", *batches, "pictures.every=0", "run=new")
    assert code == 0 and "r told pictures by their pixels, as runs did before" in err, err


def test_what_is_typed_for_a_part_is_of_the_run_s_own_part(here, cli, fails):
    code, _, err = on(cli, 3, "solver.variance=small")
    assert code == 0, err
    assert "Key 'order' not in 'solver_ddpm'" in fails("train", "run=r", "solver.order=2")
    assert "data.size: 16 there, 32 now" in fails("train", "run=r", "data.size=32")


def test_an_added_line_of_text_is_one_item(tmp_path, cli, fails, monkeypatch):
    """Though the tokens of words that are learned from all lines are others then."""
    monkeypatch.chdir(tmp_path)
    lines = [f"word{k % 7} number{k} and {k * k} more of them" for k in range(60)]
    (tmp_path / "notes.txt").write_text("\n".join(lines) + "\n")
    code, _, err = cli("train", "run=t", *TEXT, *steps(1, 2), "data.path=notes.txt")
    assert code == 0, err
    with open("notes.txt", "a") as file:
        file.write("a wholly new line of quite other words\n")
    error = fails("train", "run=t", "training.diffusion.steps=3")
    assert "1 items added and 0 removed" in error and "classes" not in error.split("accept")[0]
    code, _, err = cli("train", "run=t", "training.diffusion.steps=3", "data.changed=accept")
    assert code == 0, err
    code, _, err = cli("train", "run=t", "training.diffusion.steps=4")
    assert code == 0, err
    code, _, err = cli("sample", "run=t", "n=1", "steps=1")
    assert code == 0, err
    assert json.loads((tmp_path / "t" / "samples" / "samples.jsonl").read_text().splitlines()[0])


def test_a_model_of_text_that_goes_on_elsewhere_keeps_its_tokens(tmp_path, cli, monkeypatch):
    """Or the rows of its table would be those of other words."""
    monkeypatch.chdir(tmp_path)
    for name, word in (("one", "apple"), ("two", "zebra")):
        lines = [f"{word} {k} and {word}{k % 5} of {k * k}" for k in range(60)]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n")
    code, _, err = cli("train", "run=a", *TEXT, *steps(1, 2), "data.path=one.txt")
    assert code == 0, err
    told = ["data=text_file", "data.path=two.txt", "data.vocabulary=300", *steps(1, 2)]
    batches = [item for item in TEXT if item.startswith("training")]
    code, _, err = cli("train", "from=a", "run=b", *told, *batches, "pictures.every=0")
    assert code == 0, err
    first, second = (load_yaml(tmp_path / run / "config.yaml")["facts"] for run in "ab")
    assert first["tokenizer"] == second["tokenizer"] and first["lengths"] != second["lengths"]
    held = Learned.load(tmp_path / "b")
    assert len(held.held_out) == 6 and len(held.train) == 42, "parted as ever"
    code, _, err = cli("train", "run=b", "training.diffusion.steps=3")
    assert code == 0, err


EARLY = {
    "training.diffusion.window=4": "windows cut the axis of variable length",
    "training.diffusion.copies=4": "copies=4 would all be alike",
    "guidance.scales.foo=3": "guidance.scales.foo: this run has no such condition",
    "solver.variance=learned": "this model has learned no variance",
}


@pytest.mark.parametrize("setting", EARLY)
def test_what_the_last_stage_can_not_honour_is_told_before_the_first(setting, began, fails, tmp_path):  # fmt: skip  # noqa: E501
    told = [*FEW, f"data.path={began / 'p'}", "solver=ddpm", f"run={tmp_path / 'run'}"]
    assert EARLY[setting] in fails("train", *told, setting)
    assert not (tmp_path / "run").exists()
