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


def launch(command: str, overrides: list[str]) -> None:
    """Composes the command's configuration from the overrides and runs it."""
    import hydra
    from omegaconf import DictConfig, OmegaConf

    from anylatent.core.cli.configs import publish

    publish()
    if command != "train":
        overrides = _inherit(overrides)
    action, failures = ACTIONS[command], list[Exception]()

    def task(config: DictConfig) -> None:
        try:
            resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
            assert isinstance(resolved, dict)
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
    from anylatent.core.training.train import train

    path = train(config)
    print(f"trained: {path}. Next: anylatent sample run={path}")


def _sample(config: Config) -> None:
    from anylatent.core.run import Run

    run = Run.load(config["run"], config["device"])
    outputs, columns = draw(run, config, config["n"], config["cond"])
    modality = run.system.modality
    folder = Path(config["out"] or Path(config["run"]) / "samples")
    names = [f"{config['seed']}_{i:05d}" for i in range(config["n"])]
    modality.save(outputs, folder, names)
    sheet = folder / "contact_sheet.png"
    modality.show(outputs).save(sheet)
    print(f"{config['n']} samples in {folder}, all on {sheet}")


def draw(run: Any, config: Config, n: int, cond: Config) -> tuple[Any, Config]:
    """Samples as a configuration says, with a progress bar over all steps."""
    from rich.progress import Progress

    from anylatent.core.registry import build

    if n < 1:
        raise UserError(f"n={n}: ask for at least one sample")
    batches = -(-n // max(1, config["batch"]))
    with Progress(transient=True) as progress:
        task = progress.add_task("sampling", total=batches * config["steps"])
        outputs = run.sample(
            n,
            seed=config["seed"],
            solver=build("solver", config["solver"]),
            grid=build("grid", config["grid"]),
            steps=config["steps"],
            guidance=config["guidance"],
            cond=cond,
            batch=config["batch"],
            callback=lambda i, t, x: progress.advance(task),
        )
    return outputs, cond


def _evaluate(config: Config) -> None:
    from anylatent.core.evaluation import evaluate

    evaluate(config)


def _benchmark(config: Config) -> None:
    from anylatent.core.evaluation import benchmark

    benchmark(config)


ACTIONS: dict[str, Callable[[Config], None]] = {
    "train": _train,
    "sample": _sample,
    "evaluate": _evaluate,
    "benchmark": _benchmark,
}
