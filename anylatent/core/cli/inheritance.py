"""What a model that comes from elsewhere has from there: `from=` on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from anylatent.core.cli.command import Command
from anylatent.core.cli.configs import folders, publish_own
from anylatent.core.cli.texts import Words
from anylatent.core.modality import Modality
from anylatent.core.registry import get, groups, names
from anylatent.core.runs import RunConfig, RunDirectory
from anylatent.core.runs.sources import Tuning, source_of
from anylatent.core.support.files import UserError, place_of
from anylatent.core.support.plain_yaml import load_yaml

PRESETS = ("modality", "experiment", "source")
"""What chooses many settings at a time: who types one of these gives the whole command."""


def has_source(command: Command) -> bool:
    """Whether a command is told where its model comes from."""
    return "source" in {field.name for field in fields(command.config)}


def of_source(given: Mapping[str, Any], words: Words) -> list[str]:
    """Publishes what a source has of model, sampling and data, where `given`, values by key, does
    not choose others; returns the overrides that choose it, before what the user typed."""
    recipe = _recipe(given.get("experiment"))
    if given.get("source") is None:
        if recipe is not None:
            raise UserError(
                f"experiment={given['experiment']} changes a model: add from=PATH, such as a run"
            )
        return []
    config = _config(given["source"], given.get("run"))
    if given.get("take", "all") == "autoencoder":
        return _autoencoder_of(config, given, words)
    if "experiment" in given:
        if recipe is None:
            raise UserError(
                f"experiment={given['experiment']} and from={given['source']} both say what the "
                "model is: give those settings of the experiment that you want one by one, or take "
                "no more than the autoencoder by take=autoencoder"
            )
        given = {**recipe, **given}
    return _all_of(config, given, words)


def _recipe(name: str | None) -> dict[str, Any] | None:
    """What an experiment chooses, by key, of the model that it changes: one that says `source: ???`
    needs one to come from. None for others, which say what the model is themselves."""
    paths = [folder / "experiment" / f"{name}.yaml" for folder in folders()]
    known, found = [load_yaml(path) for path in paths if path.is_file()], dict[str, Any]()
    own = known[0] if known else {}
    if own.get("source") != "???":
        return None
    for entry in own.pop("defaults", []):
        for key, option in (entry if isinstance(entry, dict) else {}).items():
            if "@" not in key:  # parts within parts are none of a model's
                found[key.removeprefix("override").strip().lstrip("/")] = option
    return found | {key: value for key, value in own.items() if key not in (*groups(), "source")}


def _all_of(config: RunConfig, given: Mapping[str, Any], words: Words) -> list[str]:
    own = _parts({**asdict(config.model), **asdict(config.sampling), "data": config.data}, given)
    own = _tuned(own, given)
    return published({key: value for key, value in own.items() if key not in given}, words)


def _parts(own: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parts and settings of a source, as those of the modality that was typed, if one was.
    Raises UserError for one that can't begin so."""
    name = own["modality"]["name"]
    wanted = given.get("modality", name)
    if wanted == name:
        return own
    kind = get("modality", wanted)
    found = None
    if isinstance(kind, type) and issubclass(kind, Modality):
        found = kind.inherited(name, own)
    if found is None:
        raise UserError(
            f"modality={wanted}, but from={given['source']} is a model of {name}, as which no "
            f"model of {wanted} begins"
        )
    return found


def _tuned(own: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a tuning that was typed changes of it."""
    kind = get("tuning", given["tuning"]) if given.get("tuning") in names("tuning") else None
    if not (isinstance(kind, type) and issubclass(kind, Tuning)):
        return own
    return kind.inherited(given.get("stage", "all"), own)


def of_continued(given: Mapping[str, Any], words: Words, run: str) -> list[str]:
    """Publishes the parts of a run that a command goes on with, where `given` does not choose
    others, so that what is typed for one of them is of the run's own; returns the overrides that
    choose them."""
    directory = RunDirectory(Path(given.get("run", run)))
    first = {key.partition(".")[0] for key in given}
    if first & set(PRESETS) or not directory.config_path.exists():
        return []
    return _all_of(directory.config(), given, words)


def _autoencoder_of(config: RunConfig, given: Mapping[str, Any], words: Words) -> list[str]:
    """The autoencoder as it is; all else is what the modality has by default."""
    own = _parts(
        {"modality": config.model.modality, "autoencoder": config.model.autoencoder}, given
    )
    modality = dict(own.get("modality", {"name": given.get("modality")}))
    name, own = modality.pop("name"), {"autoencoder": own["autoencoder"]}
    kept = {key: value for key, value in own.items() if key not in given}
    settings: dict[str, Any] = {"modality": modality} if modality else {}
    chosen = [] if "modality" in given else [f"modality={name}"]
    return [*chosen, *publish_own(words.hidden(kept), words.hidden(settings))]


def published(own: Mapping[str, Any], words: Words) -> list[str]:
    """Publishes parts and settings, by key, of a run; returns the overrides that choose them. What
    looks like a reference to another value is text there too."""
    own = words.hidden(own)
    nodes = {key: value for key, value in own.items() if key in groups()}
    return publish_own(nodes, {key: own[key] for key in own if key not in nodes})


def _config(source: str, run: str | None) -> RunConfig:
    """The source's configuration; where it has gone since, that of the run that came from it."""
    directory = RunDirectory(Path(run or ""))
    if not place_of(source).exists() and run and directory.config_path.exists():
        config = directory.config()
        if config.source == source:
            return config
    return source_of(source).config
