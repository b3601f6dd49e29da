"""Every configuration composes and builds; a mistake is one message that lists what exists."""

from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import OmegaConf

import anylatent
from anylatent.core.cli.configs import publish
from anylatent.core.cli.main import main
from anylatent.core.registry import build, declared, get, groups, names, part
from anylatent.core.runs import Context, System, read
from anylatent.core.training import loop
from anylatent.core.training.settings import TrainConfig
from anylatent.core.training.stages.base import settings_of, stage_type

CONF = Path(anylatent.__file__).parent / "conf"
CHOSEN = [group for group in groups() if declared(group).chosen and group != "modality"]
PARTS = [(group, name) for group in CHOSEN for name in names(group)]
SMALL = ["autoencoder.channels=8", "autoencoder.blocks=1", "backbone.channels=8"]
COMMANDS = ("train", "sample", "invert", "evaluate", "benchmark")


def options(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def composed(command, *overrides):
    publish(command, get("command", command)())
    with initialize_config_module("anylatent.conf", version_base="1.3"):
        config = compose(command, ["run=somewhere", *overrides])
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def train_config(*overrides):
    return read(TrainConfig, composed("train", *overrides), "a test")


def check_builds(config):
    """The whole model, the settings of its training and of its sampling."""
    data = build("data", config.data)
    system = System(config.model, data.facts, training=True)
    assert system.generator.spec == system.autoencoder.spec
    assert len(system.trained()) > 10
    assert Context(system.generator.times).sampler(config.sampling).steps == config.sampling.steps
    for kind in (stage_type(name) for name in names("stage")):
        settings = settings_of(kind, config.training)
        assert list(build("optimizer", settings.optimizer)(system.generator.parameters()))


@pytest.mark.parametrize("name", options("modality"))
def test_modality_composes_and_builds(name):
    config = train_config(f"modality={name}")
    assert config.model.modality["name"] == name
    check_builds(config)


@pytest.mark.parametrize("name", options("experiment"))
def test_experiment_composes_and_builds(name):
    config = train_config(f"experiment={name}")
    if config.data.get("path") == "":  # clips of a user's own, in whose place these are
        size = config.data["size"]
        clips = {"name": "moving_mnist", "size": size, "clips": 4, "most": 2, "motion": True}
        config = replace(config, data=clips)
    check_builds(config)


def test_every_registered_modality_has_an_option():
    assert options("modality") == names("modality")


@pytest.mark.parametrize("command", COMMANDS)
def test_command_composes(command):
    assert composed(command)["run"] == "somewhere"


# groups that are chosen within another part: their place, and what must be chosen before
NESTED = {
    "optimizer": ("training.diffusion.optimizer",),
    "masking": ("objective.masking", "objective=score_interpolation"),
    "features": ("backbone.features",),
    "bottleneck": ("autoencoder.bottleneck",),
    "perceptual": ("autoencoder.perceptual",),
    "adversary": ("autoencoder.adversary",),
    "reader": ("data.reader", "data=video_folder"),
}


@pytest.mark.parametrize(("group", "name"), PARTS, ids=lambda value: value)
def test_part_composes_with_its_defaults(group, name):
    place, *others = NESTED.get(group, (group,))
    override = f"{group}@{place}={name}" if group in NESTED else f"{group}={name}"
    required = [k for k, (_, default) in part(group, name).settings().items() if default == "???"]
    command = "benchmark" if group == "likelihood" else "train"
    node = composed(command, *others, override, *(f"{group}.{key}=given" for key in required))
    for key in place.split("."):
        node = node[key]
    assert node["name"] == name
    for key, (_, default) in part(group, name).settings().items():
        expected = list(default) if isinstance(default, tuple) else default
        assert node[key] == ("given" if key in required else expected)
    assert set(node) == {"name", *part(group, name).settings(), *part(group, name).parts}


MOLECULES = ["modality=molecule", "experiment=molecule_cpu", "experiment=molecule_gpu"]


@pytest.mark.parametrize("choice", MOLECULES)
@pytest.mark.parametrize("other", ["autoencoder=identity", "solver=ddpm", "schedule=vp"])
def test_choices_of_a_modality_can_be_changed(choice, other):
    group, _, name = other.partition("=")
    assert composed("train", choice, other)[group]["name"] == name


def test_settings_reach_the_part():
    config = composed("train", "solver=heun", "solver.churn=10")
    assert build("solver", config["solver"]).churn == 10


def test_parts_of_parts_are_chosen_and_set():
    config = composed("train", "schedule=shifted", "schedule.shift=2")
    assert config["schedule"]["base"] == {"name": "flow"}
    assert build("schedule", config["schedule"]) is not None
    overrides = ["schedule=shifted", "schedule@schedule.base=vp", "schedule.base.beta_max=10"]
    base = composed("train", *overrides)["schedule"]["base"]
    assert base["name"] == "vp" and base["beta_max"] == 10


def test_names_of_the_user_s_own_have_numbers():
    overrides = ["++guidance.scales.text=7", "++guidance.scales.image=1.5"]
    assert composed("train", *overrides)["guidance"]["scales"] == {"text": 7.0, "image": 1.5}


def test_yaml_tuple_becomes_tuple():
    config = composed("train", *SMALL, "backbone.multipliers=[1,3]", "backbone.attention=[]")
    assert config["backbone"]["multipliers"] == [1, 3] and config["backbone"]["attention"] == []


def test_unregistered_names_are_never_built():
    with pytest.raises(LookupError, match="there are"):
        build("solver", {"name": "os.system"})
    with pytest.raises(LookupError, match="no setting _target_"):
        build("solver", {"name": "heun", "_target_": "os.system"})
    with pytest.raises(LookupError, match="must be given as"):
        build("solver", {"_target_": "os.system"})


WRONG = {
    "modality": (["modality=vidoe"], ["vidoe", "image"]),
    "experiment": (["experiment=nothing"], ["nothing", *options("experiment")]),
    "part": (["solver=hoin"], ["hoin", "dpmpp_2m", "heun"]),
    "group": (["bakcbone=unet"], ["bakcbone", "autoencoder", "Did you mean backbone?"]),
    "top key": (["stpes=3"], ["stpes", "seed", "Did you mean steps?"]),
    "setting": (["backbone.chanels=3"], ["chanels", "channels", "attention"]),
    "setting of data": (["data=mnist", "data.sze=3"], ["sze", "size"]),
    "inner key": (["training.diffusion.stps=3"], ["stps", "steps", "batch"]),
    "type": (["backbone.channels=three"], ["three", "Integer"]),
    "type in yaml": (["backbone.multipliers=[a]"], ["a", "Integer"]),
    "no such tuple": (["backbone.multipliers=3"], ["backbone.multipliers"]),
    "no run": (["run=???"], ["run must be set"]),
    "no path": (["data=folder"], ["data.path="]),
    "grammar": (["steps=a=b=["], ["steps=a=b=["]),
    "stage": (["stage=both"], ["both", "autoencoder", "diffusion", "all"]),
    "meaning": (["schedule=flow", "prediction=noise"], ["t = 1", "prediction=v"]),
    "no number": (["training.diffusion.steps=many"], ["training.diffusion.steps=many", "Integer"]),
    "sampling steps": (["steps=0"], ["at least one step"]),
    "guidance": (["guidance.rescale=2"], ["rescale must lie in"]),
    "part of a part": (["schedule=shifted", "schedule.base=vpp"], ["vpp", "flow"]),
    "target": (["+solver._target_=os.system"], ["_target_"]),
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: value.replace(" ", "_"))
def test_mistake_is_one_message_that_lists_what_exists(wrong, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "run_stage", lambda *_: pytest.fail("the training began"))
    overrides, expected = WRONG[wrong]
    with pytest.raises(SystemExit) as stopped:
        main(["train", "run=somewhere", *SMALL, *overrides])
    assert stopped.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith("anylatent: ") and "Traceback" not in message
    for text in expected:
        assert text in message
    assert not list(tmp_path.iterdir()), "a run that can't start leaves nothing"


@pytest.mark.parametrize("command", ["sample", "evaluate", "benchmark"])
def test_commands_need_a_run(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command])
    assert stopped.value.code == 1
    assert "run must be set" in capsys.readouterr().err


def test_unknown_command_and_help(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["trian"])
    assert stopped.value.code == 1
    assert (
        "benchmark, cache, cache clear, evaluate, invert, sample, solvers"
        in capsys.readouterr().err
    )
    main(["--help"])
    assert "anylatent sample run=" in capsys.readouterr().out


def test_the_help_of_a_command_shows_what_is_chosen_and_set(capsys, monkeypatch):
    monkeypatch.setattr("hydra.main", lambda *a, **k: pytest.fail("Hydra lists its own groups"))
    main(["train", "--help"])
    out = capsys.readouterr().out
    assert "usage: anylatent train modality=image" in out and "unet*" in out and "egnn," in out
    assert "experiment    emoji_cpu" in out and "objective.masking ends, every, mixed, none*" in out
    assert "\nfrom: null\n" in out and "\n  accumulate_grad_batches: 1\n" in out
    main(["train", "modality=molecule", "objective.masking=spans", "run=a, [b]", "-h"])
    out = capsys.readouterr().out
    assert "egnn*" in out and "spans*" in out and "run: a, [b]\n" in out
    for name in names("command"):
        main([*name.split("_"), "--help"])
        out = capsys.readouterr().out
        assert f"usage: anylatent {name.partition('_')[0]}" in out or name == "solvers", name
    main(["list", "--help"])
    assert "usage: anylatent list [GROUP]" in capsys.readouterr().out


def test_a_command_is_composed_once_and_hydra_s_own_flags_work(monkeypatch, capsys, tmp_path):
    calls, load = [], ConfigLoaderImpl.load_configuration
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        ConfigLoaderImpl, "load_configuration", lambda *a, **k: calls.append(a) or load(*a, **k)
    )
    told = ["train", "run=somewhere", "training.diffusion.steps=0"]
    with pytest.raises(SystemExit):
        main(told)
    assert "training.diffusion.steps=0: 1 is" in capsys.readouterr().err and len(calls) == 1
    main([*told, "--cfg", "job"])
    assert "schedule:\n  name: flow" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*told[:2], "training.diffusion.steps=0,-1", "-m"])
    assert "steps=0" in capsys.readouterr().err


def test_list_shows_every_part_with_one_line(capsys):
    main(["list"])
    out = capsys.readouterr().out
    for group in groups():
        assert f"\n{group}\n" in f"\n{out}"
        for name in names(group):
            lines = [line for line in out.splitlines() if line.split()[:1] == [name]]
            assert any(len(line.split()) > 3 for line in lines), f"{group}={name} says nothing"
    with pytest.raises(SystemExit):
        main(["list", "slover"])
    assert "solver" in capsys.readouterr().err
