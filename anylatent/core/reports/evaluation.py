"""Figures of a run: its samples and reconstructions, beside data and an untrained model."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from anylatent.core.generators import schedules_of
from anylatent.core.latents import Noise, Stream
from anylatent.core.likelihood import Measure
from anylatent.core.modality import Item, Metrics, Outputs, join, move
from anylatent.core.registry import build
from anylatent.core.reports.completions import Completions, samples_given
from anylatent.core.reports.latents import effective_dimensions, rate
from anylatent.core.reports.likelihood import DataLikelihood
from anylatent.core.runs import Computing, Node, Run, SamplingConfig, drawn, guidances, inline
from anylatent.core.runs.records import data_of, measured
from anylatent.core.support.files import UserError, save_text
from anylatent.core.support.progress import track

Rows = dict[str, dict[str, float]]


@dataclass(frozen=True)
class EvaluationConfig:
    """What `evaluate` and `benchmark` are told: n samples of a run, drawn so, under the conditions
    of held-out data. `run_is` names the modality that it must be of, `base` where what it
    leans on has moved to; `metrics` are names, or `{name: ..., setting: ...}`, of those to judge by
    (default: all that apply). Where a run was trained to complete data, `benchmark` makes so many
    `completions` of each. `generator`: one around the run's own, such as windows."""

    run: str
    data: Node
    sampling: SamplingConfig = inline()
    computing: Computing = inline(Computing)
    likelihood: Node | None = None
    generator: Node | None = None
    run_is: str | None = None
    base: str | None = None
    n: int = 1000
    seed: int = 0
    temperature: float | None = None
    batch: int = 64
    completions: int = 8
    metrics: str | Node | Sequence[str | Node] | None = None
    out: str | None = None


class Evaluation:
    """What `evaluate` and `benchmark` share: a run, its data and its metrics."""

    def __init__(self, config: EvaluationConfig) -> None:
        if config.n < 2:
            raise UserError(f"n={config.n}: figures need at least two samples")
        self.config = config
        how, around = config.computing, config.generator
        self.run = Run.load(config.run, how, config.run_is, config.base, around)
        own = self.run.directory.path
        self.data = measured(own, data_of(own, config.data))
        self.metrics = Metrics.of(self.run.system.modality, self.data, config.metrics)
        self.folder = Path(config.out or config.run)

    def evaluate(self) -> None:
        """Samples and reconstructions."""
        rows, reconstructions = {"samples": self.samples(self.run)}, self.reconstructions()
        self.report("evaluation", rows, reconstructions, {})

    def benchmark(self) -> None:
        """The same beside held-out data, data made worse, an untrained model; and the speed."""
        rows: Rows = {"samples": self.samples(self.run)}
        own = self.config.sampling
        seconds = self.seconds / self.config.n
        rows |= self.metrics.baselines(self.run.conditions(own.guidance))
        quick = replace(own, steps=min(own.steps, 4), guidance=None)
        rows["untrained"] = self.samples(self.run.untrained(), quick)
        parameters = sum(p.numel() for p in self.run.system.generator.parameters())
        speed = {
            "seconds_per_sample": seconds,
            "steps": float(own.steps),
            "generator_parameters": float(parameters),
            "training_samples": _seen(self.run),
        }
        other = {**speed, **self.latents(), **self.likelihood()}
        completions = self.completions()
        self.report("benchmark", rows, self.reconstructions(), other, completions)

    # ---- figures ------------------------------------------------------------------------------
    def samples(self, run: Run, sampling: SamplingConfig | None = None) -> dict[str, float]:
        """Figures of n samples under the held-out data's conditions, each used in turn."""
        config, sampling = self.config, sampling or self.config.sampling
        dataset: Any = self.data.held_out()
        items = [dataset[i] for i in range(min(config.n, len(dataset)))]
        cond = columns_of(items, asked(run, sampling.guidance), config.n)
        also = self.data.classes if run.system.conditioner.spec.names else ()  # a caption's class
        columns = {**cond, **columns_of(items, also, config.n)}
        run.check_asked(list(cond), sampling.guidance)
        sampler, start = run.context.sampler(sampling, config.temperature), time.monotonic()
        given = samples_given(run, items, sampler, config.n, config.seed, config.batch)
        if given is None:
            given = drawn(run, sampler, config.seed, cond, config.n, config.batch)
        self.seconds = time.monotonic() - start
        return self.metrics.samples(given, columns if cond else {})

    def completions(self) -> Rows:
        """Figures of held-out data that are completed from parts of them."""
        config = self.config
        part = Completions(self.run, self.data.held_out(), config.completions, config.seed)
        return part.rows(self.run.context.sampler(config.sampling), self.metrics)

    def _held_out(self, most: int = 512) -> Any:
        """Held-out batches on the run's device."""
        system, dataset = self.run.system, self.data.held_out()
        count = min(most, len(dataset))  # type: ignore[arg-type]
        for start in track(range(0, count, 64), "encoding", -(-count // 64)):
            items = [dataset[i] for i in range(start, min(start + 64, count))]
            yield move(system.modality.collate(items), system.device)

    @torch.no_grad()
    def reconstructions(self) -> Rows:
        """Figures of held-out data encoded and decoded: from the mean, from a sample, and from
        means without each field of the latent in turn, which then has its average value; beside
        those that the data have themselves."""
        system, decoded = self.run.system, self.run.system.autoencoder.decoded
        fields = list(system.autoencoder.spec.fields)
        lost = {f"without {name}": name for name in fields if len(fields) > 1}
        outputs: dict[str, list[Outputs]] = {"mean": [], "sample": [], **{row: [] for row in lost}}
        originals = []
        for index, batch in enumerate(self._held_out()):
            originals.append(system.modality.originals(batch).to("cpu"))
            posterior = system.autoencoder.encode(batch)
            noise = Noise.of((self.config.seed, Stream.POSTERIORS, index), posterior.mean.batch)
            whole = system.normaliser.encode(posterior.mean)
            outputs["mean"].append(system.decode(whole).to("cpu"))
            outputs["sample"].append(decoded(posterior.sample(noise)).to("cpu"))
            for row, name in lost.items():
                partial = whole.replace(**{name: torch.zeros_like(whole[name])})
                outputs[row].append(system.decode(partial).to("cpu"))
        judge, data = self.metrics, join(originals)
        rows = {row: judge.reconstructions(data, join(made)) for row, made in outputs.items()}
        own = judge.unrestored(data)
        return {**rows, "held-out": own} if own else rows

    @torch.no_grad()
    def latents(self) -> dict[str, float]:
        """Does the latent do anything? Its rate, and how many of its dimensions carry it."""
        system, rates, samples = self.run.system, [], []
        for index, batch in enumerate(self._held_out()):
            posterior = system.autoencoder.encode(batch)
            noise = Noise.of((self.config.seed, Stream.RATE, index), posterior.mean.batch)
            samples.append(system.normaliser.encode(posterior.sample(noise)))
            if posterior.log_std is not None:
                rates.append(system.normaliser.posterior(posterior))
        return {**rate(rates), **effective_dimensions(samples)}

    def likelihood(self) -> dict[str, float]:
        """That of held-out latents and, where there is one, the bound on that of the data."""
        measure: Measure = build("likelihood", self.config.likelihood or {"name": "elbo"})
        if measure.samples < 1:
            return {}
        run = self.run
        followed = self.config.sampling.guidance if measure.guided else None
        guidance = None if followed is None else run.guided(followed)
        part = DataLikelihood(run.system, measure, run.conditions(followed), guidance)
        found = part.figures(self._held_out(measure.samples), self.config.seed)
        return {**found, **_units_seen(run, found)}

    # ---- report -------------------------------------------------------------------------------
    def report(
        self,
        name: str,
        rows: Rows,
        reconstructions: Rows,
        other: dict[str, float],
        completions: Rows | None = None,
    ) -> None:
        """Prints tables, and writes them as JSON and Markdown."""
        config = self.config
        how = f"{config.n} samples, seed {config.seed}, {_way(self.run, config)}"
        tables = {how: rows, "reconstruction of held-out data": reconstructions}
        if completions:
            tables[f"held-out data completed, {config.completions} times each"] = completions
        if other:
            tables["latents and speed"] = {"": other}
        text = "\n\n".join(f"{title}\n\n{table(each)}" for title, each in tables.items())
        text = "\n\n".join([text, *(self.metrics.notes if len(rows) > 1 else ())])
        print(text)
        values = {
            "how": how,
            "samples": rows,
            "reconstruction": reconstructions,
            "other": other,
            **({"completions": completions} if completions else {}),
        }
        save_text(self.folder / f"{name}.json", json.dumps(values, indent=2) + "\n")
        save_text(self.folder / f"{name}.md", f"# {name} of {config.run}\n\n{text}\n")
        print(f"\nwritten to {self.folder / name}.json and .md")


def _seen(run: Run) -> float:
    """How many samples the generator learned from, copies counted."""
    settings = run.config.training["diffusion"]
    return float(settings["steps"] * settings["batch"])


def _units_seen(run: Run, found: Mapping[str, float]) -> dict[str, float]:
    """About how many tokens the generator learned from, where data are made of such."""
    if run.system.autoencoder.codebook() is None:
        return {}
    (name,) = (key for key in found if key.startswith("bound_nats_per_"))
    per_sample = found["bound_nats"] / found[name]
    return {f"training_{name.removeprefix('bound_nats_per_')}s": _seen(run) * per_sample}


def _way(run: Run, config: EvaluationConfig) -> str:
    """How samples were drawn, in words."""
    sampling, generator, told = config.sampling, run.system.generator, list[str]()
    if schedules_of(generator):
        guided = " of ".join(map(_told, guidances(sampling.guidance))) or "none"
        told = [sampling.solver["name"], f"{sampling.steps} steps", f"guidance {guided}"]
    if generator.masking is not None and generator.masking.always:
        told.append("each with what is given of a held-out item, and contained in it")
    if config.temperature is not None:
        told.append(f"temperature {config.temperature}")
    told = told or [type(generator).__name__.lower()]
    return ", ".join([*told, f"precision {run.precision}"])


def _told(guidance: Node) -> str:
    """One guidance in words."""
    scales = [f"{value:g} for {name}" for name, value in (guidance.get("scales") or {}).items()]
    return ", ".join([f"{guidance['name']} {guidance['scale']:g}", *scales])


def asked(run: Run, guidance: Node | None) -> list[str]:
    """The columns of held-out data that samples are drawn under."""
    names = run.conditions(guidance)
    variable = any(f.variable for f in run.system.autoencoder.spec.fields.values())
    if names and variable and not run.system.generator.draws_sizes:
        names += run.system.modality.sizes.asks  # they go with what they belong to
    return names


def columns_of(items: Sequence[Item], names: Iterable[str], n: int) -> dict[str, list[Any]]:
    """The named columns that the items have, each item used in turn until there are n."""
    known = [name for name in dict.fromkeys(names) if name in items[0]]
    return {name: [items[i % len(items)][name] for i in range(n)] for name in known}


def table(rows: Mapping[str, Mapping[str, float | None]]) -> str:
    """Markdown with a row for each figure and a column for each set."""
    figures = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [["", *rows], ["---"] * (len(rows) + 1)]
    for name in figures:
        values = (row.get(name) for row in rows.values())
        lines.append([name, *("" if v is None else f"{v:.4g}" for v in values)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    padded = ([cell.ljust(w) for cell, w in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)
