"""The commands that take a Hydra configuration."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from anylatent.core.files import UserError
from anylatent.core.system import Config

SAMPLING = ("solver", "grid", "guidance")
INHERITED = {"solvers": ("guidance",), "invert": ("grid", "data")}
"""What a command takes from a run's configuration, where that is not all of how it samples."""

NAME = r"(?!(true|false|null)$)[a-z]\w*"

SHEET = 256
"""Samples on a contact sheet, unless there is a row for each class."""


def launch(command: str, overrides: list[str]) -> None:
    """Composes the command's configuration from the overrides and runs it."""
    import hydra
    from omegaconf import DictConfig, OmegaConf

    from anylatent.core.cli.configs import check_numbers, publish

    publish()
    overrides = [re.sub(r"^likelihood=(?=\d)", "likelihood.samples=", item) for item in overrides]
    overrides = [_choice(item) for item in overrides]
    if command != "train":
        overrides = [re.sub(r"^modality=", "run_is=", item) for item in overrides]
        overrides = _inherit(overrides, INHERITED.get(command, (*SAMPLING, "steps")))
    action, failures = ACTIONS[command], list[Exception]()

    def task(config: DictConfig) -> None:
        sys.argv = [original[0], command, *overrides]  # from which Lightning starts processes
        try:
            resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
            assert isinstance(resolved, dict)
            check_numbers(resolved, command)
            if command == "train" and resolved["stage"] == "classifier":
                resolved = _of_run(resolved, overrides)
            action({str(key): value for key, value in resolved.items()})
        except Exception as error:  # kept from hydra's own printer; a sweep goes on
            failures.append(error)

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come to us, not to hydra's printer
    original = sys.argv
    sys.argv = [original[0], *(_quote(override) for override in overrides)]
    try:
        hydra.main("pkg://anylatent.conf", command, version_base="1.3")(task)()
    finally:
        sys.argv = original
    if failures:
        raise failures[0]


def _inherit(overrides: list[str], wanted: Sequence[str]) -> list[str]:
    """Puts the run's own solver, grid, guidance and steps before what the user asks for, or those
    of stored noise that samples are to start from."""
    from anylatent.core.run_directory import RunDirectory

    given = {_key(item): item.partition("=")[2] for item in overrides if "=" in item}
    if "run" not in given:
        return overrides
    config = RunDirectory(Path(given["run"].strip("'\""))).config()
    numbers = ["steps"] if "steps" in wanted else []
    if given.get("noise", "null") != "null":
        from anylatent.core.stored_noise import stored_settings

        config |= stored_settings(Path(given["noise"].strip("'\"")))
        numbers.append("n")
    inherited = [f"{key}={config[key]}" for key in numbers if key not in given]
    for group in (group for group in wanted if group != "steps"):
        node = config.get(group)
        if isinstance(node, dict):
            lines = _written(group, group, node, given)
            inherited += [line for line in lines if _key(line) not in given]
    return inherited + overrides


def _written(group: str, place: str, node: Config, given: Container[str]) -> Iterator[str]:
    """The overrides that choose and set a part as its node says, unless another one is given."""
    from anylatent.core.registry import part

    choice = group if place == group else f"{group}@{place}"
    if choice in given:
        return
    yield f"{choice}={node['name']}"
    inner = part(group, node["name"]).parts
    for key, value in node.items():
        if key in inner and isinstance(value, dict):
            yield from _written(inner[key][0], f"{place}.{key}", value, given)
        elif isinstance(value, dict):  # names of the user's own
            yield from (f"{place}.{key}.{name}={entry}" for name, entry in value.items())
        elif key != "name" and value is not None:
            yield f"{place}.{key}={_text(value) if isinstance(value, str) else value}"


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def _choice(override: str) -> str:
    """`schedule.base=vp` chooses a part within a part, for Hydra `schedule@schedule.base=vp`."""
    from anylatent.core.registry import groups, names, part

    key, _, value = override.partition("=")
    group, *path = key.split(".")
    if group not in groups() or not path or not re.fullmatch(NAME, value):
        return override
    for name in path:
        inner = (part(group, option).parts for option in names(group))
        group = next((parts[name][0] for parts in inner if name in parts), "")
        if not group:
            return override
    return f"{group}@{override}"


def _of_run(config: dict[Any, Any], overrides: list[str]) -> dict[Any, Any]:
    """For a further stage of a finished run its own settings, where none of them is repeated."""
    from anylatent.core.run_directory import RunDirectory, is_free

    given = [item.lstrip("+~").partition("=")[0] for item in overrides if "=" in item]
    if not all(is_free(key.partition("@")[2] or key) for key in given):
        return config  # which must be the run's
    own = RunDirectory(Path(config["run"])).config()
    fresh = ("run", "stage", "trainer", "pictures", "checkpoint", "log_every", "classifier")
    training = {**own["training"], "classifier": config["training"]["classifier"]}
    return {**own, **{key: config[key] for key in fresh}, "training": training}


def _quote(override: str) -> str:
    """`cond.x=free text` may hold spaces and commas, and names a key of any name, as do scales."""
    key, sign, value = override.partition("=")
    key = key.lstrip("+")
    if sign and re.match(r"guidance\.(denoiser\.)*scales\.", key):
        return f"++{key}={value}"
    if not sign or not key.startswith("cond."):
        return override
    plain = re.match(r"""^(['"\[{]|-?\d+(\.\d*)?$|true$|false$|null$)""", value)
    return f"++{key}={value if plain else _text(value)}"


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _train(config: Config) -> None:
    from anylatent.core.exact import GaussianDenoiser
    from anylatent.core.registry import build
    from anylatent.core.system import sampling_parts
    from anylatent.core.training.train import train

    schedule = build("schedule", config["schedule"])
    _, grid, guidance = sampling_parts(config)  # what only sampling reads fails now, not in hours
    grid(schedule, config["steps"])
    if guidance is not None:
        guidance(GaussianDenoiser(schedule, 0.0, 1.0))
    path, how = train(config), ""
    if config["stage"] == "classifier":
        how = f" guidance=classifier guidance.scale=2 cond.{config['classifier']['label']}=..."
    print(f"trained: {path}. Next: anylatent sample run={path}{how}")


def _sample(config: Config) -> None:
    from anylatent.core.files import replacing
    from anylatent.core.run import Run

    run = Run.load(config["run"], config["device"], config["run_is"])
    n, cond, labels = config["n"], dict(config["cond"]), list[str]()
    if config["each"] is not None:
        labels = _classes(run.config["facts"]["classes"], config["each"])
        cond[config["each"]] = [label for label in labels for _ in range(n)]
    count = n * max(1, len(labels))
    noise = None
    if config["noise"] is not None:
        noise, own = _stored(run, config, list(range(n)) * max(1, len(labels)))
        cond = {**own, **cond}
    outputs = draw(run, config, count, cond, noise)
    modality = run.system.modality
    folder = Path(config["out"] or Path(config["run"]) / "samples")
    prefixes = [f"{label}_" for label in cond[config["each"]]] if labels else [""] * count
    names = [f"{prefix}{config['seed']}_{i:05d}" for i, prefix in enumerate(prefixes)]
    modality.save(outputs, folder, names)
    shown = outputs if labels else outputs[:SHEET]
    with replacing(folder / "contact_sheet.png") as temporary:
        modality.show(shown, n if labels else None, labels).save(temporary, format="PNG")
    which = "all" if len(shown) == count else f"the first {len(shown)}"
    print(f"{count} samples in {folder}, {which} on {folder / 'contact_sheet.png'}")


def _classes(classes: Config, key: str) -> list[str]:
    if key not in classes:
        raise UserError(f"each={key}: the run's class columns are {', '.join(classes) or 'none'}")
    return list(classes[key])


def _stored(run: Any, config: Config, rows: list[int]) -> tuple[Any, Config]:
    """Noise from a file, for each of some of its samples, and the conditions that it was found
    under."""
    from anylatent.core.stored_noise import StoredNoise

    stored = StoredNoise.load(Path(config["noise"]), run.system.autoencoder.spec)
    if not 0 < len(set(rows)) <= stored.noise.batch:
        raise UserError(f"n={config['n']}, but {config['noise']} has noise of {stored.noise.batch}")
    known = run.conditions(config["guidance"])
    columns = {name: values for name, values in stored.columns.items() if name in known}
    chosen = {name: [values[row] for row in rows] for name, values in columns.items()}
    return stored.noise.select(rows), chosen


def draw(run: Any, config: Config, n: int, cond: Config, noise: Any = None) -> Any:
    """Samples as a configuration says, with a progress bar over all steps."""
    from anylatent.core.progress import bar

    batches = -(-n // max(1, config["batch"]))
    with bar("sampling", batches * config["steps"]) as advance:
        return run.sample(
            n,
            seed=config["seed"],
            solver=config["solver"],
            grid=config["grid"],
            steps=config["steps"],
            guidance=config["guidance"],
            temperature=config["temperature"],
            cond=cond,
            batch=config["batch"],
            callback=lambda i, t, x: advance(),
            noise=noise,
        )


def _evaluate(config: Config) -> None:
    from anylatent.core.evaluation import Evaluation

    Evaluation(config, draw).evaluate()


def _benchmark(config: Config) -> None:
    from anylatent.core.evaluation import Evaluation

    Evaluation(config, draw).benchmark()


def _invert(config: Config) -> None:
    from anylatent.core.inversion import Inversion

    Inversion(config).write()


def _solvers(config: Config) -> None:
    from anylatent.core.solver_report import SolverReport

    SolverReport(config).write()


ACTIONS: dict[str, Callable[[Config], None]] = {
    "train": _train,
    "sample": _sample,
    "evaluate": _evaluate,
    "benchmark": _benchmark,
    "solvers": _solvers,
    "invert": _invert,
}
