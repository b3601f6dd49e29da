"""A run that starts from another: digits 0-4 to digits 5-9, as plain folders without labels."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import anylatent as al
from anylatent.core.latents import Posterior, Stream
from anylatent.core.registry import Part
from anylatent.core.registry.store import _parts
from anylatent.core.runs import RunDirectory
from anylatent.core.training.precision import compact
from anylatent.core.training.step_sampler import StepSampler
from tests.cli import TINY, launch, rows, steps

SMALL = [s for s in TINY if not s.startswith(("data", "conditioner", "training", "pictures"))]
HOW = ["training.autoencoder.batch=8", "training.diffusion.batch=8", "pictures.every=0"]
HOW += ["trainer.accelerator=cpu", "log_every=1"]
FAST = ["training.diffusion.warmup=2", "training.diffusion.average=0.8"]
FAST += ["training.diffusion.optimizer.lr=3e-3"]
STILL = ["training.diffusion.steps=1", "training.diffusion.optimizer.lr=0"]
PART = ["tuning=matching", "tuning.pattern=backbone.(up|last|middle)"]
TUNINGS = {"all": ["tuning=all"], "matching": PART}


def pictures_of(folder, wanted, classes=False):
    """Pictures of some digits, with or without a folder for each."""
    for item in al.get("data", "mnist")(size=16, held_out=0.9).train():
        if int(item["digit"]) in wanted:
            place = folder / str(item["digit"]) if classes else folder
            place.mkdir(parents=True, exist_ok=True)
            pixels = ((item["image"][0] + 1) * 127.5).round().byte().numpy()
            Image.fromarray(pixels).save(place / f"{item['name']}.png")
    return folder


def data(folder):
    return ["data=folder", f"data.path={folder}", "data.size=16", "data.held_out=0.3"]


@pytest.fixture(scope="module")
def low(tmp_path_factory):
    return pictures_of(tmp_path_factory.mktemp("low"), range(5))


@pytest.fixture(scope="module")
def high(tmp_path_factory):
    return pictures_of(tmp_path_factory.mktemp("high"), range(5, 10))


@pytest.fixture(scope="module")
def base(tmp_path_factory, low):
    """A run of the digits 0-4."""
    path = tmp_path_factory.mktemp("base") / "run"
    quick = ["training.autoencoder.warmup=2", "training.autoencoder.average=0.8"]
    quick += ["training.autoencoder.optimizer.lr=5e-3", *FAST]
    told = [*data(low), "conditioner=none", *SMALL, *HOW, *quick, *steps(60, 80)]
    launch("train", f"run={path}", *told, "solver=ddim", "steps=4")
    return path


@pytest.fixture
def begin(base, high, cli):
    """Starts a run from the base; its folder."""

    def run(path, *more, source=base, pictures=high):
        found = data(pictures) if pictures else []
        code, out, err = cli("train", f"from={source}", f"run={path}", *found, *HOW, *more)
        assert code == 0, err
        return out

    return run


@pytest.fixture(scope="module")
def tuned(base, high, tmp_path_factory):
    """A run of the digits 5-9 from the base, by each tuning."""
    found = {}
    for name, how in TUNINGS.items():
        found[name] = tmp_path_factory.mktemp(name) / "run"
        told = [f"from={base}", f"run={found[name]}", *data(high), *HOW, *FAST, *how]
        more = ["pictures.every=120", "pictures.samples=2", "training.diffusion.steps=120"]
        launch("train", *told, *more)
    return found


def hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def weights(path):
    return load_file(path / "model.safetensors")


def metadata(path):
    with safe_open(path / "model.safetensors", "pt") as file:
        return file.metadata()


def samples(cli, run, out, *more):
    code, _, err = cli("sample", f"run={run}", "n=3", f"out={out}", *more)
    assert code == 0, err
    return [path.read_bytes() for path in sorted(out.glob("0_*.png"))]


def drawn(run):
    return al.load(run, device="cpu").sample(3, seed=0).tensor


def column(path, name):
    return [float(row[name]) for row in rows(path / "logs" / "diffusion.csv") if row.get(name)]


def loss_of(model, pictures, batch=8):
    """The generator's loss of the first step on new pictures, with the weights as they are."""
    system, dataset = model.system, al.get("data", "folder")(str(pictures), 16, 0.3).train()
    sampler = StepSampler(len(dataset), batch, 1, 0, 0, 0, 1)
    items = [dataset[i] for i in next(iter(sampler))]
    noise = al.Noise.of((0, Stream.DIFFUSION, 0), range(batch))
    noise.uniform()  # which the loop seeds torch with
    found = system.autoencoder.encode(system.modality.collate(items))
    kept = compact(found.mean["z"], found.log_std["z"], centred=False)  # as the cache has it
    mean, log_std = (found.mean.replace(z=x.float()) for x in kept)
    x0 = system.normaliser.encode(Posterior(mean, log_std).sample(noise))
    return float(system.generator.loss(x0, None, noise).mean())


# ---- the start --------------------------------------------------------------------------------
@pytest.mark.parametrize("name", TUNINGS)
def test_the_start_is_the_base_bit_for_bit(name, base, begin, cli, tmp_path):
    out = begin(tmp_path / "run", *STILL, *TUNINGS[name])
    assert "autoencoder 1/" not in out, "trained although all of it was taken"
    parts = re.findall(r"\| (\w+) \| ([\d,]+) numbers in (\d+) tensors \| - \| - \|", out)
    assert [part for part, *_ in parts] == ["autoencoder", "normaliser", "generator"]
    own = weights(base)
    counted = [sum(k.startswith(part) for k in own) for part, *_ in parts]
    assert [int(tensors) for *_, tensors in parts] == counted
    assert torch.equal(drawn(tmp_path / "run"), drawn(base))
    ours = samples(cli, tmp_path / "run", tmp_path / "ours")
    assert len(ours) == 3 and ours == samples(cli, base, tmp_path / "theirs")


@pytest.mark.parametrize("name", TUNINGS)
def test_the_first_loss_is_that_of_the_base(name, tuned, base, high):
    expected = loss_of(al.load(base, device="cpu"), high)
    assert column(tuned[name], "loss")[0] == pytest.approx(expected, rel=1e-6)
    assert column(tuned["all"], "loss")[0] == column(tuned["matching"], "loss")[0]
    assert column(tuned["all"], "loss")[1] != column(tuned["matching"], "loss")[1]


@pytest.mark.parametrize("name", TUNINGS)
def test_held_out_loss_falls_and_the_base_is_untouched(name, tuned, base, begin, tmp_path):
    before = hashes(base)
    begin(tmp_path / "run", *STILL, "pictures.every=1", "pictures.samples=2")
    (at_first,) = column(tmp_path / "run", "held_out_loss")
    (at_last,) = column(tuned[name], "held_out_loss")
    assert at_last < 0.97 * at_first, (at_first, at_last)
    assert hashes(base) == before


def test_what_is_not_tuned_does_not_move_and_is_not_saved(tuned, base):
    old, new = weights(base), al.load(tuned["matching"], device="cpu").system.trained()
    pattern = re.compile(PART[1].partition("=")[2])
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert (
        moved == {name for name in old if pattern.search(name)} == set(weights(tuned["matching"]))
    )
    assert set(weights(tuned["all"])) == set(old)
    assert "base" in metadata(tuned["matching"]) and "base" not in metadata(tuned["all"])


def test_normaliser_is_taken_and_not_fitted(tuned, base):
    old, new = weights(base), weights(tuned["all"])
    for name in old:
        if name.startswith("normaliser"):
            assert torch.equal(old[name], new[name]), name
    assert metadata(tuned["all"])["normalised"] == "yes"
    fitted = al.load(base, device="cpu").system.normaliser
    assert float(fitted.state_dict()["scale_z"].sub(1).abs().max()) > 1e-3, "fitted to nothing"


def test_settings_are_the_source_s_unless_typed(tuned, base, begin, tmp_path, low):
    own, new = (RunDirectory(path).config() for path in (base, tuned["all"]))
    assert new.model == own.model and new.sampling == own.sampling and own.sampling.steps == 4
    assert new.data["path"] != own.data["path"]
    begin(tmp_path / "run", *STILL, "backbone.blocks=2", "solver=heun", pictures=None)
    changed = RunDirectory(tmp_path / "run").config()
    assert changed.model.backbone == {**own.model.backbone, "blocks": 2}
    assert changed.sampling.solver["name"] == "heun" and changed.sampling.steps == 4
    assert changed.data == own.data


# ---- more conditions than the base ------------------------------------------------------------
class Hint(al.Conditioner):
    """A map that is as bright as the name of a picture says."""

    def __init__(self):
        super().__init__()
        self.spec = al.ConditionSpec(maps={"name": 1})

    def forward(self, columns):
        if "name" not in columns:
            return al.Condition()
        values = [1 + sum(map(ord, name)) % 7 for name in columns["name"]]
        maps = torch.tensor(values).float().view(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone()
        return al.Condition({"name": maps})


def test_a_new_condition_says_nothing_at_first(base, begin, cli, tmp_path):
    pictures = pictures_of(tmp_path / "classes", range(5, 8), classes=True)
    out = begin(tmp_path / "run", *STILL, "conditioner=label", pictures=pictures)
    assert "new" in out
    run = al.load(tmp_path / "run", device="cpu")
    for cond in ({}, {"category": "6"}):
        assert torch.equal(run.sample(3, cond=cond, guidance={"name": "none"}).tensor, drawn(base))
    quick = ["training.diffusion.steps=6", *FAST]
    begin(tmp_path / "more", *quick, "conditioner=label", pictures=pictures)
    table = weights(tmp_path / "more")[
        "generator.denoiser.backbone.condition.classes.category.weight"
    ]
    assert bool((table.abs().sum(1) > 0).all()), "some classes can not learn"


@pytest.mark.parametrize("backbone", ["unet", "dit"])
def test_a_widened_input_says_nothing_at_first(backbone, base, begin, cli, monkeypatch, tmp_path):
    monkeypatch.setitem(_parts["conditioner"], "hint", Part("conditioner", "hint", Hint))
    if backbone == "dit":  # whose input layer reads patches
        small = ["backbone=dit", "backbone.width=32", "backbone.depth=1", "backbone.heads=2"]
        begin(tmp_path / "dit", *small, "training.diffusion.steps=20", *FAST)
        base = tmp_path / "dit"
    begin(tmp_path / "run", *STILL, "conditioner=hint", source=base)
    first = [
        weights(path)["generator.denoiser.backbone.first.weight"]
        for path in (base, tmp_path / "run")
    ]
    assert first[1].shape[1] > first[0].shape[1]
    run, told = al.load(tmp_path / "run", device="cpu"), {"name": ["ab", "cd", "xyz"]}
    plain = run.sample(3, cond=told, guidance={"name": "none"}).tensor
    assert float((plain - drawn(base)).abs().max()) < 1e-6
    assert torch.equal(run.sample(3, guidance={"name": "none"}).tensor, plain), "the map is heard"
    begin(tmp_path / "more", *FAST, "training.diffusion.steps=20", "conditioner=hint", source=base)
    run = al.load(tmp_path / "more", device="cpu")
    assert not torch.equal(
        run.sample(3, cond=told, guidance={"name": "none"}).tensor,
        run.sample(3, guidance={"name": "none"}).tensor,
    ), "the map can not learn"


# ---- stop and go on ---------------------------------------------------------------------------
def test_stopped_in_the_middle_goes_on_to_the_same_weights(base, high, cli, stop_at, tmp_path):
    run, whole = tmp_path / "run", tmp_path / "whole"
    told = ["train", f"from={base}", *data(high), *HOW, *PART, *FAST, "training.diffusion.steps=60"]
    go_on = stop_at("diffusion", 20)
    code, _, err = cli(*told, f"run={run}")
    assert code == 1 and "stopped at diffusion step 20 of 60" in err
    state = torch.load(run / "checkpoints" / "diffusion.ckpt", weights_only=True)["system"]
    assert set(state) < set(weights(base)), "the checkpoint repeats the base"
    go_on()
    for path in (run, whole):
        code, out, err = cli(*told, f"run={path}")
        assert code == 0, err
        first = int(re.search(r"diffusion (\d+)/60", out).group(1))
        assert first == (21 if path == run else 1), "started anew"
    got, expected = weights(run), weights(whole)
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert torch.equal(value, got[name]), name


def test_the_same_command_continues_a_run_whose_source_has_gone(base, begin, cli, tmp_path):
    source = Path(shutil.copytree(base, tmp_path / "source"))
    begin(tmp_path / "run", *STILL, "tuning=all", source=source)
    shutil.rmtree(source)
    begin(tmp_path / "run", *STILL, "tuning=all", source=source)
    assert len(samples(cli, tmp_path / "run", tmp_path / "out")) == 3


# ---- the base ---------------------------------------------------------------------------------
@pytest.fixture
def leaning(base, begin, tmp_path):
    """A run that leans on a copy of the base, and that copy."""
    source = Path(shutil.copytree(base, tmp_path / "a" / "source"))
    begin(tmp_path / "b" / "run", *FAST, "training.diffusion.steps=2", *PART, source=source)
    return tmp_path / "b" / "run", source


def test_base_that_has_moved(leaning, cli, fails, high, tmp_path):
    run, source = leaning
    expected = samples(cli, run, tmp_path / "x")
    moved = source.rename(tmp_path / "moved")
    message = fails("sample", f"run={run}", "n=3")
    assert str(source) in message and "base=" in message and "standalone=yes" in message
    assert samples(cli, run, tmp_path / "y", f"base={moved}") == expected
    few = ["n=4", "steps=2", f"base={moved}", f"run={run}"]
    for command in (["invert"], ["evaluate"], ["benchmark"], ["benchmark", "solvers"]):
        more = ["evaluations=[2]", "reference=8", "solvers=[ddim]"] if command[1:] else []
        told = [word for word in few if command[1:] == [] or not word.startswith("steps")]
        code, out, err = cli(*command, *told, *more, f"out={tmp_path / command[-1]}")
        assert code == 0, err
        assert f"leans on {moved}" in out
    told = [f"from={source}", f"run={run}", *data(high), *HOW, *FAST, *PART]
    told += ["training.diffusion.steps=2", f"base={moved}"]
    code, _, err = cli("train", *told, "standalone=yes")
    assert code == 0, err
    shutil.rmtree(moved)
    assert samples(cli, run, tmp_path / "z") == expected
    assert "base" not in metadata(run)


def test_both_moved_together_need_no_word(leaning, cli, tmp_path):
    run, source = leaning
    expected = samples(cli, run, tmp_path / "x")
    (tmp_path / "new").mkdir()
    for path in (run, source):
        path.parent.rename(tmp_path / "new" / path.parent.name)
    assert samples(cli, tmp_path / "new" / "b" / "run", tmp_path / "y") == expected


def test_base_that_has_changed(leaning, fails):
    run, source = leaning
    tensors = weights(source)
    name = next(name for name in tensors if name.startswith("autoencoder."))
    tensors[name] = tensors[name] + 1e-3
    save_file(tensors, source / "model.safetensors", metadata(source))
    message = fails("sample", f"run={run}", "n=1")
    assert str(source) in message and "changed" in message and "base=" in message
    told = json.loads(metadata(run)["base"])
    assert told["digest"] in message


def test_standalone_copies_everything(base, begin, cli, tmp_path):
    source = Path(shutil.copytree(base, tmp_path / "source"))
    begin(
        tmp_path / "run",
        *FAST,
        "training.diffusion.steps=2",
        *PART,
        "standalone=yes",
        source=source,
    )
    assert set(weights(tmp_path / "run")) == set(weights(base))
    shutil.rmtree(source)
    assert len(samples(cli, tmp_path / "run", tmp_path / "out")) == 3


def test_a_run_of_a_run_leans_on_the_first(leaning, begin, cli, tmp_path):
    run, source = leaning
    begin(
        tmp_path / "c",
        *FAST,
        "training.diffusion.steps=2",
        "tuning=matching",
        "tuning.pattern=backbone.last",
        source=run,
    )
    told = json.loads(metadata(tmp_path / "c")["base"])
    assert told["path"] == str(source.resolve())
    first, second = (al.load(p, device="cpu").system.trained() for p in (run, tmp_path / "c"))
    moved = {name for name in first if not torch.equal(first[name], second[name])}
    assert moved == {name for name in first if "backbone.last" in name}
    expected = samples(cli, tmp_path / "c", tmp_path / "x")
    shutil.rmtree(run)
    assert samples(cli, tmp_path / "c", tmp_path / "y") == expected


class Gained(al.Backbone):
    """A backbone with a gain that starts at one."""

    def __init__(self, inner):
        super().__init__()
        self.spec, self.conditions = inner.spec, inner.conditions
        self.inner, self.gain = inner, torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, c_noise, cond=None):
        return (1 + self.gain) * self.inner(x, c_noise, cond)


class Gain(al.Tuning):
    """A network of its own in the backbone."""

    def extend(self, system):
        denoiser = system.generator.denoiser
        denoiser.backbone = Gained(denoiser.backbone)

    def learns(self, names):
        return [name for name in names if name.endswith(".gain")]


def test_a_tuning_that_adds_a_network(base, begin, cli, fails, monkeypatch, high, tmp_path):
    monkeypatch.setitem(_parts["tuning"], "gain", Part("tuning", "gain", Gain))
    begin(tmp_path / "still", *STILL, "tuning=gain")
    assert torch.equal(drawn(tmp_path / "still"), drawn(base))
    begin(tmp_path / "run", *FAST, "training.diffusion.steps=3", "tuning=gain")
    own = weights(tmp_path / "run")
    assert set(own) == {"generator.denoiser.backbone.gain"} and float(*own.values()) != 0
    assert not torch.equal(drawn(tmp_path / "run"), drawn(base))
    begin(tmp_path / "plain", *STILL, *PART)
    told = [f"from={base}", f"run={tmp_path / 'plain'}", *data(high), *HOW, *STILL]
    assert "begin another run" in fails("train", *told, "tuning=gain")


# ---- other stages, and less than all ----------------------------------------------------------
def test_decoder_alone_is_tuned_and_samples_at_once(base, begin, cli, tmp_path):
    told = ["stage=autoencoder", "tuning=matching", "tuning.pattern=decoder"]
    out = begin(tmp_path / "run", *told, "training.autoencoder.steps=3")
    assert "autoencoder 1/3" in out
    new, old = al.load(tmp_path / "run", device="cpu").system.trained(), weights(base)
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert moved == {name for name in old if "decoder" in name} != set()
    ours, theirs = (
        samples(cli, run, tmp_path / run.parent.name) for run in (tmp_path / "run", base)
    )
    assert len(ours) == 3 and ours != theirs


def test_autoencoder_alone_is_taken(base, begin, cli, tmp_path):
    told = ["take=autoencoder", "conditioner=none", *SMALL, "backbone.channels=4"]
    out = begin(tmp_path / "run", *told, "training.diffusion.steps=2")
    assert "autoencoder 1/" not in out
    new, old = weights(tmp_path / "run"), weights(base)
    for name, value in old.items():
        if name.startswith("autoencoder."):
            assert torch.equal(value, new[name]), name
    assert metadata(tmp_path / "run")["normalised"] == "no"
    own = RunDirectory(tmp_path / "run").config()
    assert own.sampling.steps == 20, "the source's sampling was taken"


def test_a_leaning_run_guides_another_on_its_latents(base, begin, cli, tmp_path):
    begin(tmp_path / "weak", *FAST, "training.diffusion.steps=2", *PART)
    how = ["guidance=autoguidance", f"guidance.weak={tmp_path / 'weak'}", "guidance.scale=40"]
    guided = samples(cli, base, tmp_path / "guided", *how)
    assert guided != samples(cli, base, tmp_path / "plain")


# ---- what makes no sense ----------------------------------------------------------------------
def test_mistakes_are_one_message(base, fails, high, tmp_path):
    run = [f"run={tmp_path / 'run'}", *data(high), *HOW]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model_index.json").write_text("{}")
    message = fails("train", f"from={tmp_path / 'other'}", *run)
    assert "model_index.json" in message and "run: " in message
    assert "nothing there" in fails("train", f"from={tmp_path / 'nowhere'}", *run)
    told = ["tuning=matching", "tuning.pattern=attn2"]
    message = fails("train", f"from={base}", *run, *told)
    assert "attn2" in message and "generator.denoiser.backbone." in message
    message = fails("train", f"from={base}", "modality=text", f"run={tmp_path / 'b'}")
    assert "image" in message and "text" in message
    message = fails("train", f"from={base}", "experiment=mnist_cpu", f"run={tmp_path / 'b'}")
    assert "experiment" in message and "take=autoencoder" in message
    wrong = ["take=autoencoder", "autoencoder.channels=16", "conditioner=none", *SMALL[1:]]
    message = fails("train", f"from={base}", f"run={tmp_path / 'c'}", *data(high), *HOW, *wrong)
    assert "another architecture" in message and not (tmp_path / "c").exists()
    assert "take=" in fails("train", f"from={base}", "take=backbone", f"run={tmp_path / 'd'}")
    assert "itself" in fails("train", f"from={base}", f"run={base}", "training.diffusion.steps=9")


def test_checkpoint_of_another_tuning_is_refused(base, high, cli, fails, stop_at, tmp_path):
    told = ["train", f"from={base}", f"run={tmp_path / 'run'}", *data(high), *HOW]
    stop_at("diffusion", 1)
    assert "stopped at diffusion step 1" in cli(*told, *PART)[2]
    message = fails(*told, "tuning=matching", "tuning.pattern=last")
    assert "tuning" in message and "last" in message
