"""The commands that take a Hydra configuration."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anylatent.core.files import UserError
from anylatent.core.system import Config

SAMPLING = ("solver", "grid", "guidance")

SHEET = 256
"""Samples on a contact sheet, unless there is a row for each class."""


def launch(command: str, overrides: list[str]) -> None:
    """Composes the command's configuration from the overrides and runs it."""
    import hydra
    from omegaconf import DictConfig, OmegaConf

    from anylatent.core.cli.configs import check_numbers, publish

    publish()
    if command != "train":
        overrides = _inherit([re.sub(r"^modality=", "run_is=", item) for item in overrides])
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


def _inherit(overrides: list[str]) -> list[str]:
    """Puts the run's own solver, grid, guidance and steps before what the user asks for."""
    from anylatent.core.run import RunDirectory

    given = dict(item.lstrip("+").partition("=")[::2] for item in overrides if "=" in item)
    if "run" not in given:
        return overrides
    config = RunDirectory(Path(given["run"].strip("'\""))).config()
    inherited = [] if "steps" in given else [f"steps={config['steps']}"]
    for group in SAMPLING:
        node = config.get(group)
        if group in given or not isinstance(node, dict):
            continue
        inherited.append(f"{group}={node['name']}")
        inherited += [
            f"{group}.{key}={value}"
            for key, value in node.items()
            if key != "name" and f"{group}.{key}" not in given and value is not None
        ]
    return inherited + overrides


def _of_run(config: dict[Any, Any], overrides: list[str]) -> dict[Any, Any]:
    """For a further stage of a finished run its own settings, where none of them is repeated."""
    from anylatent.core.run import RunDirectory, is_free

    given = [item.lstrip("+~").partition("=")[0] for item in overrides if "=" in item]
    if not all(is_free(key.partition("@")[2] or key) for key in given):
        return config  # which must be the run's
    own = RunDirectory(Path(config["run"])).config()
    fresh = ("run", "stage", "trainer", "pictures", "checkpoint", "log_every", "classifier")
    training = {**own["training"], "classifier": config["training"]["classifier"]}
    return {**own, **{key: config[key] for key in fresh}, "training": training}


def _quote(override: str) -> str:
    """`cond.x=free text` may hold spaces and commas, and names a key of any name."""
    key, sign, value = override.partition("=")
    if not sign or not key.lstrip("+").startswith("cond."):
        return override
    if not re.match(r"""^(['"\[{]|-?\d+(\.\d*)?$|true$|false$|null$)""", value):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        value = f"'{escaped}'"
    return f"++{key.lstrip('+')}={value}"


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
    outputs = draw(run, config, count, cond)
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


def draw(run: Any, config: Config, n: int, cond: Config) -> Any:
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
        )


def _evaluate(config: Config) -> None:
    from anylatent.core.evaluation import Evaluation

    Evaluation(config, draw).evaluate()


def _benchmark(config: Config) -> None:
    from anylatent.core.evaluation import Evaluation

    Evaluation(config, draw).benchmark()


ACTIONS: dict[str, Callable[[Config], None]] = {
    "train": _train,
    "sample": _sample,
    "evaluate": _evaluate,
    "benchmark": _benchmark,
}
