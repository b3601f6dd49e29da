"""Which stages a command runs: those that are not done, and those that are to have more steps."""

from __future__ import annotations

from anylatent.core.support.files import UserError
from anylatent.core.training.stages.base import Training, learning, settings_of, stage_type


def wanted(training: Training) -> list[str]:
    """The stages to run now, in order. Raises UserError where one needs what is not there."""
    asked, autoencoder = training.config.stage, training.system.autoencoder
    learns = bool(learning([autoencoder]))
    if asked == "all":
        chosen = ["autoencoder", "diffusion"] if autoencoder.alone or not learns else ["joint"]
        return [
            n for n in _left(training, chosen) if not training.done.ready or n in training.longer
        ]
    kind = stage_type(asked)
    if kind.further and not training.done.ready:
        raise UserError(
            f"{training.directory.path} has no finished generator yet, beside which stage={asked} "
            "is trained: train it first, with stage=all"
        )
    if "autoencoder" in (asked, *kind.needs) and learns and not autoencoder.alone:
        raise UserError(
            f"stage={asked}: {type(autoencoder).__name__} learns with the generator alone; use "
            "stage=joint"
        )
    missing = [name for name in kind.needs if name not in training.done.done]
    if missing and learns:
        raise UserError(
            f"{training.directory.path} has no trained {missing[0]} yet: use stage=all, or "
            f"stage={missing[0]} first"
        )
    return [asked] if kind.further else _left(training, [*missing, asked])


def _left(training: Training, chosen: list[str]) -> list[str]:
    return [name for name in chosen if training.left(name)]


def longer(training: Training) -> tuple[str, ...]:
    """Stages that are done, with fewer steps than are asked for now. Raises UserError where they
    can't go on."""
    found = list[str]()
    for name, steps in training.done.steps.items():
        kind = stage_type(name.partition(".")[0])
        if settings_of(kind, training.config.training).steps > steps:
            _check_longer(training, name, kind.name)
            found.append(name)
    return tuple(found)


def _check_longer(training: Training, name: str, stage: str) -> None:
    done, run = training.done, training.directory
    whole = not any(other.startswith(f"{name}.") for other in done.steps)
    later = [n for n in done.done[done.done.index(name) + 1 :] if n.partition(".")[0] != stage]
    why = ""
    if later:
        why = f"its {later[0]} has been trained on it since, and would not fit what it becomes"
    elif whole and not run.finished(name).exists():
        why = (
            f"{run.finished(name)}, which it would go on from, is not there: it was removed by "
            "finish=yes, or this is a run that was kept on the way, which has weights alone"
        )
    if why:
        raise UserError(f"training.{stage}.steps: {why}: begin another run, from={run.path}")
