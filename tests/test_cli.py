"""The command line from end to end, on real digits with tiny networks."""

import json
import os
import re
import resource
import signal

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import anylatent as al
from anylatent.core.runs.run import RunDirectory
from anylatent.core.training.encoding import Encoder
from tests.cli import DIGITS, TINY, finish, launch, pixels, rows, start, steps, stop_in


# ---- training, sampling, measuring ------------------------------------------------------------
def test_run_directory(digits):
    assert RunDirectory(digits).stages().done[-1] == "diffusion"
    assert not list((digits / "checkpoints").glob("*")), "finished stages need no checkpoint"
    for name in ("reconstructions_000020.png", "samples_000060.png"):
        assert Image.open(digits / "pictures" / name).size[0] > 16
    for stage, last in {"autoencoder": "20", "diffusion": "60"}.items():
        told = rows(digits / "logs" / f"{stage}.csv")
        assert told[-1]["step"] == last and any(row.get("loss") for row in told)
        assert list((digits / "logs" / stage).glob("events.*"))


def test_finished_run_is_left_alone(copied, cli):
    before = (copied / "model.safetensors").stat().st_mtime_ns
    code, out, _ = cli("train", f"run={copied}", *DIGITS)
    assert code == 0 and "trained" in out
    assert (copied / "model.safetensors").stat().st_mtime_ns == before


def test_samples_do_not_depend_on_the_batch(digits, cli, tmp_path):
    common = ["sample", f"run={digits}", "seed=0", "steps=3", "cond.digit=7"]
    for name, batch in {"a": 64, "b": 2, "c": 64}.items():
        code, out, err = cli(*common, "n=5", f"batch={batch}", f"out={tmp_path / name}")
        assert code == 0, err
        assert "5 samples" in out and str(tmp_path / name) in out
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == [f"0_{i:05d}.png" for i in range(5)] + ["contact_sheet.png"]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "c" / file).read_bytes()
    # other kernels for another batch size may differ in the last bit before rounding
    assert (pixels(tmp_path / "a") - pixels(tmp_path / "b")).abs().max() <= 1
    code, *_ = cli(*common, "n=3", f"out={tmp_path / 'd'}")
    assert (pixels(tmp_path / "a")[:3] - pixels(tmp_path / "d")).abs().max() <= 1


def test_sampling_settings_take_effect(digits, cli, tmp_path):
    common = ["sample", f"run={digits}", "n=2", "steps=3", "cond.digit=7"]
    variants = {
        "own": [],
        "same": ["solver=ddpm", "guidance.scale=2.0"],
        "seed": ["seed=1"],
        "solver": ["solver=adams"],
    }
    for name, extra in variants.items():
        code, _, err = cli(*common, *extra, f"out={tmp_path / name}")
        assert code == 0, err
        prefix = "1" if name == "seed" else "0"
        assert (tmp_path / name / f"{prefix}_00000.png").exists()
    sheets = {n: (tmp_path / n / "contact_sheet.png").read_bytes() for n in variants}
    assert sheets["own"] == sheets["same"]
    for name in ("seed", "solver"):
        assert sheets[name] != sheets["own"], f"{name} changes nothing"
    run = al.load(digits, device="cpu")  # so little trained, eight bits do not show every change
    few, more = (run.sample(2, steps=steps, cond={"digit": 7}) for steps in (3, 5))
    assert not torch.equal(few.tensor, more.tensor)


def test_a_row_for_each_class(digits, cli, tmp_path):
    code, out, err = cli(
        "sample", f"run={digits}", "each=digit", "n=2", "steps=1", f"out={tmp_path}"
    )
    assert code == 0, err
    assert len(list(tmp_path.glob("*_0_*.png"))) == 20
    width, height = Image.open(tmp_path / "contact_sheet.png").size
    assert height >= 10 * 16 and width < height


def test_run_is_portable_and_python_draws_the_same(copied, cli, tmp_path):
    moved = copied.rename(tmp_path / "elsewhere")
    code, _, err = cli("sample", f"run={moved}", "n=2", "steps=3", "cond.digit=3")
    assert code == 0, err
    drawn = al.load(moved, device="cpu").sample(2, seed=0, steps=3, cond={"digit": "3"})
    expected = ((drawn.tensor + 1) * 127.5).round().clamp(0, 255).int().flatten(1)
    assert (pixels(moved / "samples") - expected).abs().max() <= 1


def test_fresh_process_samples_the_same(digits, cli, tmp_path):
    arguments = ["sample", f"run={digits}", "n=2", "steps=2", "cond.digit=1"]
    assert cli(*arguments, f"out={tmp_path / 'a'}")[0] == 0
    finish(start([*arguments, f"out={tmp_path / 'b'}"]))
    assert (pixels(tmp_path / "a") - pixels(tmp_path / "b")).abs().max() <= 1


@pytest.mark.slow
def test_evaluate_and_benchmark(digits, cli, tmp_path):
    for command in ("evaluate", "benchmark"):
        extra = ["modality=image"] if command == "benchmark" else []
        code, out, err = cli(command, f"run={digits}", "n=32", "steps=1", f"out={tmp_path}", *extra)
        assert code == 0, err
        name = "evaluation" if command == "evaluate" else command
        figures = json.loads((tmp_path / f"{name}.json").read_text())
        assert figures["samples"]["samples"] and figures["reconstruction"]
        assert "|" in out and (tmp_path / f"{name}.md").exists()
    assert len(figures["samples"]) > 3, "baselines beside the samples"


# ---- stopping and going on --------------------------------------------------------------------
LONG = steps(60, 60) + [
    "log_every=5",
    "autoencoder.adversary=patch",
    "autoencoder.adversary_start=20",
]
LONG += ["backbone.dropout=0.1", "autoencoder.perceptual_weight=0"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("uninterrupted") / "run"
    launch("train", f"run={path}", *TINY, *LONG)
    return path


def first_step(out, stage):
    """The first step that a process reports."""
    return int(re.search(rf"{stage} (\d+)/60", out).group(1))


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, id="ctrl_c", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, id="kill_9"),
    ],
)
def test_stopped_run_goes_on_to_the_same_weights(number, uninterrupted, tmp_path):
    run = tmp_path / "run"
    arguments = ["train", f"run={run}", *TINY, *LONG]
    assert first_step(stop_in("autoencoder", number, arguments, run), "autoencoder") == 1
    assert not (run / "model.safetensors").exists()
    out = stop_in("diffusion", number, arguments, run)
    assert first_step(out, "autoencoder") > 1, "started anew instead of going on"
    assert RunDirectory(run).stages().done[-1] == "autoencoder"
    out = launch(*arguments)
    assert "autoencoder 1/60" not in out and first_step(out, "diffusion") > 1
    expected, got = (load_file(p / "model.safetensors") for p in (uninterrupted, run))
    assert set(expected) == set(got)
    for name, value in expected.items():
        assert torch.equal(value, got[name]), name
    for stage in ("autoencoder", "diffusion"):
        rows = [losses(path / "logs" / f"{stage}.csv") for path in (uninterrupted, run)]
        assert [step for step, _ in rows[1]] == [step for step, _ in rows[0]]


def losses(path):
    return [(int(r["step"]), float(r["loss"])) for r in rows(path) if r.get("loss")]


def test_two_processes_see_the_losses_of_one(tmp_path):
    arguments = ["train", *TINY, *steps(6, 6), "log_every=1"]
    two = ["trainer.devices=2", "trainer.strategy=ddp"]
    process = start([*arguments, f"run={tmp_path / 'two'}", *two], tmp_path / "cache")
    launch(*arguments, f"run={tmp_path / 'one'}")
    finish(process)
    for stage in ("autoencoder", "diffusion"):
        one, both = (losses(tmp_path / n / "logs" / f"{stage}.csv") for n in ("one", "two"))
        assert len(one) == 6 and [s for s, _ in one] == [s for s, _ in both]
        for (_, a), (_, b) in zip(one, both, strict=True):
            assert abs(a - b) < 1e-5 * max(1, abs(a))
    one, both = (load_file(tmp_path / n / "model.safetensors") for n in ("one", "two"))
    for name, value in one.items():
        assert torch.allclose(value.float(), both[name].float(), atol=1e-4), name


@pytest.mark.slow
def test_two_processes_train_a_joint_model_as_one(tmp_path):
    """Table and network together, in times warped by the losses of both processes."""
    text = [
        "modality=text", "data.limit=300", "backbone.width=32", "backbone.depth=1",
        "backbone.heads=2", "training.diffusion.steps=6", "training.diffusion.batch=16",
        "pictures.every=0", "log_every=1", "trainer.accelerator=cpu",
    ]  # fmt: skip
    two = ["trainer.devices=2", "trainer.strategy=ddp"]
    finish(start(["train", *text, f"run={tmp_path / 'one'}"]))
    finish(start(["train", *text, f"run={tmp_path / 'two'}", *two]))
    one, both = (losses(tmp_path / n / "logs" / "joint.csv") for n in ("one", "two"))
    assert len(one) == 6
    assert [loss for _, loss in both] == pytest.approx([loss for _, loss in one], rel=1e-4)
    one, both = (load_file(tmp_path / n / "model.safetensors") for n in ("one", "two"))
    assert float(one["generator.objective.times.seen"].sum()) > 20
    for name, value in one.items():
        assert torch.allclose(value, both[name], atol=1e-3), name


@pytest.mark.slow
def test_two_processes_with_an_adversary_that_starts_late(tmp_path):
    """Before its start the adversary has no gradient, for which plain DDP would wait."""
    late = [
        "autoencoder.adversary=patch",
        "autoencoder.adversary_start=2",
        "autoencoder.perceptual_weight=0",
    ]
    arguments = ["train", *TINY, *steps(4, 1), "log_every=1", *late, "stage=autoencoder"]
    two = ["trainer.devices=2", "trainer.strategy=ddp"]
    finish(start([*arguments, f"run={tmp_path / 'run'}", *two], tmp_path / "cache"))
    assert len(losses(tmp_path / "run" / "logs" / "autoencoder.csv")) == 4


def test_latents_are_made_once_and_again_when_what_made_them_changes(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path / "cache"))
    made = []
    encode = Encoder.__call__

    def counted(self, entries):
        made.append(entries)
        return encode(self, entries)

    monkeypatch.setattr(Encoder, "__call__", counted)

    def train(name, *extra):
        """How many entries were encoded."""
        made.clear()
        code, _, err = cli("train", f"run={tmp_path / name}", *TINY, *steps(1, 1), *extra)
        assert code == 0, err
        return sum(map(len, made))

    assert train("a") == 500
    assert train("b") == 0, "the same data and autoencoder"
    assert train("c", "backbone.embedding=8", "schedule=vp") == 0, "the diffusion model alone"
    assert train("d", "seed=1") == 500, "other weights of the autoencoder"
    assert train("e", "conditioner=none") == 500
    assert train("f", "data.seed=1") == 500
    for path in (tmp_path / "cache").glob("latents-*/shard-*"):
        path.write_bytes(path.read_bytes()[:100])
    assert train("g") == 500, "a broken cache is made again"
    assert train("h") == 0
    flipped = ["training.diffusion.copies=3", "modality.flip=true"]
    assert train("i", *flipped) == 1500 and train("j", *flipped) == 0


def test_copies_are_not_what_is_measured(cli, fails, tmp_path):
    """Nothing is augmented that is held out, nor by one copy, whose run is that without any."""
    train = ["train", *TINY, *steps(2, 3), "log_every=1", "pictures.every=3", "modality.flip=true"]
    rows = {}
    for name, extra in {"none": [], "one": ["copies=1"], "three": ["copies=3"]}.items():
        copies = [f"training.diffusion.{setting}" for setting in extra]
        assert cli(*train, f"run={tmp_path / name}", *copies)[0] == 0
        rows[name] = losses(tmp_path / name / "logs" / "diffusion.csv")
    weights = {name: load_file(tmp_path / name / "model.safetensors") for name in rows}
    assert rows["none"] == rows["one"] != rows["three"]
    assert all(torch.equal(weights["none"][k], v) for k, v in weights["one"].items())
    alike = fails("train", f"run={tmp_path / 'alike'}", *TINY, *steps(2, 3), copies[0])
    assert "copies=3 would all be alike" in alike and "copies=1" in alike
    joint = ["stage=joint", "modality.flip=true", copies[0]]
    message = fails("train", f"run={tmp_path / 'joint'}", *TINY, *steps(2, 3), *joint)
    assert "augments items anew at each step" in message and "copies=3" in message


def test_stages_apart(cli, fails, tmp_path):
    run = tmp_path / "run"
    arguments = ["train", f"run={run}", *TINY, *steps(2, 2)]
    assert "no trained autoencoder" in fails(*arguments, "stage=diffusion")
    assert cli(*arguments, "stage=autoencoder")[0] == 0
    assert RunDirectory(run).stages().done[-1] == "autoencoder"
    assert "only its autoencoder so far" in fails("sample", f"run={run}")
    assert cli(*arguments, "stage=diffusion")[0] == 0
    assert RunDirectory(run).stages().done[-1] == "diffusion"


# ---- bad input --------------------------------------------------------------------------------
def test_other_settings_are_refused_not_mixed(copied, fails):
    message = fails("train", f"run={copied}", *DIGITS, "backbone.channels=16")
    assert "backbone.channels" in message and "8" in message and "16" in message


def test_folder_without_pictures(fails, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("text")
    run = f"run={tmp_path / 'run'}"
    for path in ("empty", "nowhere", "file.txt"):
        message = fails("train", run, "data=folder", f"data.path={tmp_path / path}")
        assert path in message
    assert "no pictures" in fails("train", run, "data=folder", f"data.path={tmp_path / 'empty'}")
    assert not (tmp_path / "run").exists()


def test_broken_picture_among_good_ones(cli, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(12):
        Image.new("RGB", (20, 16), (20 * i, 0, 255)).save(folder / f"good{i}.png")
    whole = (folder / "good0.png").read_bytes()
    (folder / "cut_short.png").write_bytes(whole[: len(whole) // 2])
    (folder / "no_picture.jpg").write_bytes(b"not a picture")
    settings = [s for s in TINY if not s.startswith(("data", "conditioner"))]
    settings += ["data=folder", f"data.path={folder}", "data.size=16", "conditioner=none"]
    code, _, err = cli("train", f"run={tmp_path / 'run'}", *settings, *steps(1, 1))
    assert code == 0, err
    (text,) = [line for line in err.splitlines() if "cannot be read" in line]
    assert re.match("anylatent: warning: of 14 pictures in .*, 2 cannot be read", text)
    assert "cut_short.png" in text and "no_picture.jpg" in text and "good1" not in text


@pytest.mark.parametrize("command", ["sample", "evaluate", "benchmark"])
def test_run_that_does_not_exist(command, fails, tmp_path):
    assert "no run at" in fails(command, f"run={tmp_path / 'nowhere'}")
    assert "no config.yaml" in fails(command, f"run={tmp_path}")


def test_run_that_is_cut_short(copied, fails):
    weights = copied / "model.safetensors"
    whole = weights.read_bytes()
    for size in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        weights.write_bytes(whole[:size])
        assert "not a whole safetensors file" in fails("sample", f"run={copied}", "n=1")
    weights.unlink()
    assert "no model.safetensors" in fails("sample", f"run={copied}", "n=1")
    weights.write_bytes(whole)
    config = (copied / "config.yaml").read_text()
    for text in ("", config[: len(config) // 2], "a: [", "\x00", "[1, 2]"):
        (copied / "config.yaml").write_text(text)
        assert "config.yaml" in fails("sample", f"run={copied}", "n=1")


def test_weights_of_another_architecture(copied, fails):
    config = copied / "config.yaml"
    text = config.read_text()
    changed = text.replace("embedding: 16", "embedding: 32")
    assert changed != text
    config.write_text(changed)
    message = fails("sample", f"run={copied}", "n=1")
    assert "another architecture" in message and "has shape" in message


def test_numbers_without_meaning(digits, fails):
    run = f"run={digits}"
    assert "n=0" in fails("sample", run, "n=0")
    assert "n=-3" in fails("sample", run, "n=-3")
    assert "n=0" in fails("evaluate", run, "n=0")
    assert "steps=0" in fails("sample", run, "n=1", "steps=0")
    assert "batch=0" in fails("sample", run, "n=1", "batch=0")
    assert "rescale" in fails("sample", run, "n=1", "guidance.rescale=2")
    assert "n=three" in fails("sample", run, "n=three")
    assert "seed=1.5" in fails("sample", run, "n=1", "seed=1.5")


def test_unknown_conditions(digits, fails):
    run = f"run={digits}"
    assert "digit" in fails("sample", run, "n=1", "cond.colour=red")
    assert "7, 8, 9" in fails("sample", run, "n=1", "cond.digit=eleven")
    assert "3 values for 2 samples" in fails("sample", run, "n=2", "cond.digit=[1,2,3]")
    assert "digit" in fails("sample", run, "each=colour")


MEANINGLESS = {
    "prediction": (["schedule=flow", "prediction=noise"], "no meaning at t = 1"),
    "steps": (["training.diffusion.steps=0"], "training.diffusion.steps=0: 1 is"),
    "batch": (["training.autoencoder.batch=0"], "autoencoder.batch=0: 1 is"),
    "factor": (["autoencoder.factor=3"], "factor must be one of"),
    "size": (["data.size=18"], "multiples of"),
    "precision": (["trainer.precision=16-mixed"], "bf16-mixed"),
    "sampling": (["guidance.rescale=2"], "rescale must lie in"),
}


@pytest.mark.parametrize("case", MEANINGLESS)
def test_combinations_without_meaning(case, fails, tmp_path):
    overrides, expected = MEANINGLESS[case]
    settings = [s for s in TINY if s.split("=")[0] not in {o.split("=")[0] for o in overrides}]
    assert expected in fails("train", f"run={tmp_path / 'run'}", *settings, *overrides)
    assert not (tmp_path / "run").exists()


def limited():
    """No file may grow beyond this, as if the device were full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))


def test_no_space_left_while_saving(cli, tmp_path):
    run = tmp_path / "run"
    arguments = ["train", f"run={run}", *TINY, *steps(2, 2)]
    assert cli(*arguments, "stage=autoencoder")[0] == 0
    before = (run / "model.safetensors").read_bytes()
    process = start([*arguments, "log_every=100"], tmp_path / "cache", preexec_fn=limited)
    out, err = process.communicate(timeout=900)
    assert process.returncode == 1, out + err
    assert "could not save" in err and "model.safetensors" in err
    assert "the old file is untouched" in err and "Traceback" not in err
    assert "latents" in err and "made again next time" in err
    assert (run / "model.safetensors").read_bytes() == before
    assert not list(run.glob(".model*")), "no half file is left behind"
    assert cli(*arguments)[0] == 0, "with space again, the same command goes on"


@pytest.mark.slow
def test_no_space_left_while_logging(tmp_path):
    """TensorBoard's outgrows the disk before the stage is done, the digests of items do not."""

    def less():
        resource.setrlimit(resource.RLIMIT_FSIZE, (84_000, 84_000))

    arguments = ["train", f"run={tmp_path / 'run'}", *TINY, *steps(900, 2), "log_every=1"]
    process = start(arguments, tmp_path / "cache", preexec_fn=less)
    out, err = process.communicate(timeout=900)
    assert "TensorBoard's log" in out and "autoencoder 900/900" in out, out + err
    assert process.returncode == 1 and "could not save" in err and "Traceback" not in out + err


def test_no_space_left_for_pictures(digits, cli, tmp_path):
    def tight():
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))

    out = tmp_path / "out"
    process = start(["sample", f"run={digits}", "n=1", f"out={out}"], preexec_fn=tight)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 1 and "could not save" in err and "Traceback" not in err
    assert not list(out.glob("*.png")) and not list(out.glob(".*"))


# ---- nothing in a run is executed -------------------------------------------------------------
class Evil:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickle_that_would_run(tmp_path):
    torch.save({"x": Evil(tmp_path / "proof")}, tmp_path / "evil")
    torch.load(tmp_path / "evil", weights_only=False)
    assert (tmp_path / "proof").exists(), "the tests below would prove nothing"


def test_weights_that_are_a_pickle(copied, fails, tmp_path):
    weights = copied / "model.safetensors"
    torch.save({"x": Evil(tmp_path / "bad")}, weights)
    assert "never loaded" in fails("sample", f"run={copied}", "n=1")
    weights.rename(copied / "model.pt")
    message = fails("sample", f"run={copied}", "n=1")
    assert "model.pt" in message and "never loaded" in message
    assert not (tmp_path / "bad").exists()


def test_checkpoint_that_would_run(cli, fails, tmp_path):
    run = tmp_path / "run"
    arguments = ["train", f"run={run}", *TINY, *steps(2, 2)]
    assert cli(*arguments, "stage=autoencoder")[0] == 0
    (run / "checkpoints").mkdir(exist_ok=True)
    torch.save({"x": Evil(tmp_path / "bad")}, run / "checkpoints" / "diffusion.ckpt")
    message = fails(*arguments)
    assert "diffusion.ckpt" in message and "not loaded" in message
    assert not (tmp_path / "bad").exists()


TARGETS = {
    "solver": "solver:\n  _target_: os.system\n  command: mkdir BAD\n",
    "name": "solver:\n  name: os.system\n  command: mkdir BAD\n",
    "inner": "backbone:\n  name: unet\n  extra: [{_target_: os.system, command: mkdir BAD}]\n",
    "partial": "guidance:\n  _partial_: true\n  _target_: os.mkdir\n  path: BAD\n",
    "resolver": "solver:\n  name: ${oc.env:HOME}\n",
}


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_config_that_asks_for_something_unregistered(kind, command, copied, fails, tmp_path):
    from omegaconf import OmegaConf

    config = OmegaConf.load(copied / "config.yaml")
    replaced = OmegaConf.create(TARGETS[kind].replace("BAD", str(tmp_path / "bad")))
    for key, node in replaced.items():
        config["model" if key == "backbone" else "sampling"][key] = node
    (copied / "config.yaml").write_text(OmegaConf.to_yaml(config))
    message = fails(command, f"run={copied}", "n=2", "steps=1")
    if kind not in ("name", "resolver"):
        assert "refused" in message and "_target_: os" in message
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize(
    "override", ["+solver._target_=os.system", "++backbone._target_=os.system", "solver=os.system"]
)
def test_command_line_that_asks_for_something_unregistered(override, fails, tmp_path):
    fails("train", f"run={tmp_path / 'run'}", *TINY, override)
    assert not (tmp_path / "run").exists()
