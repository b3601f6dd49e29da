"""`anylatent sample`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anylatent.core.support.files import UserError

SHEET = 256
"""Samples on a contact sheet, unless there is a row for each class."""


def run(config: Mapping[str, Any]) -> None:
    from anylatent.core.runs import Run
    from anylatent.core.support.files import replacing

    model = Run.load(config["run"], config["device"], config["run_is"])
    n, cond, labels = config["n"], dict(config["cond"]), list[str]()
    if config["each"] is not None:
        labels = _classes(model.config["facts"]["classes"], config["each"])
        cond[config["each"]] = [label for label in labels for _ in range(n)]
    count = n * max(1, len(labels))
    noise = None
    if config["noise"] is not None:
        noise, own = _stored(model, config, list(range(n)) * max(1, len(labels)))
        cond = {**own, **cond}
    outputs = draw(model, config, count, cond, noise)
    modality = model.system.modality
    folder = Path(config["out"] or Path(config["run"]) / "samples")
    prefixes = [f"{label}_" for label in cond[config["each"]]] if labels else [""] * count
    names = [f"{prefix}{config['seed']}_{i:05d}" for i, prefix in enumerate(prefixes)]
    modality.save(outputs, folder, names)
    shown = outputs if labels else outputs[:SHEET]
    with replacing(folder / "contact_sheet.png") as temporary:
        modality.show(shown, n if labels else None, labels).save(temporary, format="PNG")
    which = "all" if len(shown) == count else f"the first {len(shown)}"
    print(f"{count} samples in {folder}, {which} on {folder / 'contact_sheet.png'}")


def _classes(classes: Mapping[str, Any], key: str) -> list[str]:
    if key not in classes:
        raise UserError(f"each={key}: the run's class columns are {', '.join(classes) or 'none'}")
    return list(classes[key])


def _stored(run: Any, config: Mapping[str, Any], rows: list[int]) -> tuple[Any, Mapping[str, Any]]:
    """Noise from a file, for each of some of its samples, and the conditions that it was found
    under."""
    from anylatent.core.runs import StoredNoise

    stored = StoredNoise.load(Path(config["noise"]), run.system.autoencoder.spec)
    if not 0 < len(set(rows)) <= stored.noise.batch:
        raise UserError(f"n={config['n']}, but {config['noise']} has noise of {stored.noise.batch}")
    known = run.conditions(config["guidance"])
    columns = {name: values for name, values in stored.columns.items() if name in known}
    chosen = {name: [values[row] for row in rows] for name, values in columns.items()}
    return stored.noise.select(rows), chosen


def draw(
    run: Any, config: Mapping[str, Any], n: int, cond: Mapping[str, Any], noise: Any = None
) -> Any:
    """Samples as a configuration says, with a progress bar over all steps."""
    from anylatent.core.support.progress import bar

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
