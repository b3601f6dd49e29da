"""Figures of a run: its samples and reconstructions, beside data and an untrained model."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from anylatent.core.autoencoder import move
from anylatent.core.codebook import Codebook
from anylatent.core.files import UserError, save_text
from anylatent.core.latent_report import effective_dimensions, rate
from anylatent.core.modality import Data, Metrics
from anylatent.core.noise import Noise
from anylatent.core.progress import track
from anylatent.core.registry import build
from anylatent.core.run import Run
from anylatent.core.system import Config

LOG_SNR = 8.0
"""Of the latents whose likelihood is measured: noise of deviation 0.018 beside data of 1."""

FLOW_STEPS = 16
"""Of order 5, along the probability flow."""

Rows = dict[str, dict[str, float]]
Draw = Callable[[Run, Config, int, Config], Any]


class Evaluation:
    """What `evaluate` and `benchmark` share: a run, its data and its metrics."""

    def __init__(self, config: Config, draw: Draw) -> None:
        if config["n"] < 2:
            raise UserError(f"n={config['n']}: figures need at least two samples")
        self.config, self.draw = config, draw
        self.run = Run.load(config["run"], config["device"], config["run_is"])
        self.data: Data = build("data", self.run.config["data"])
        self.metrics: Metrics = self.run.system.modality.metrics(self.data)
        self.folder = Path(config["out"] or config["run"])

    def evaluate(self) -> None:
        """Samples and reconstructions."""
        rows, reconstructions = {"samples": self.samples(self.run)}, self.reconstructions()
        self.report("evaluation", rows, reconstructions, {})

    def benchmark(self) -> None:
        """The same beside held-out data, data made worse, an untrained model; and the speed."""
        rows: Rows = {"samples": self.samples(self.run)}
        seconds = self.seconds / self.config["n"]
        rows |= self.metrics.baselines(self.run.conditions(self.config["guidance"]))
        quick = {"steps": min(self.config["steps"], 4), "guidance": {"name": "none"}}
        untrained = {**self.config, **quick}
        rows["untrained"] = self.samples(self.run.untrained(), untrained)
        parameters = sum(p.numel() for p in self.run.system.generator.parameters())
        speed = {
            "seconds_per_sample": seconds,
            "steps": float(self.config["steps"]),
            "generator_parameters": float(parameters),
            "training_samples": self._seen(),
        }
        other = {**speed, **self.latents(), **self.likelihood(self.config["likelihood"])}
        self.report("benchmark", rows, self.reconstructions(), other)

    # ---- figures ------------------------------------------------------------------------------
    def samples(self, run: Run, config: Config | None = None) -> dict[str, float]:
        """Figures of n samples under the held-out data's conditions, each used in turn."""
        n, config = self.config["n"], config or self.config
        dataset: Any = self.data.held_out()
        items = [dataset[i] for i in range(min(n, len(dataset)))]
        names = run.conditions(config["guidance"])
        variable = any(f.variable for f in run.system.autoencoder.spec.fields.values())
        if names and variable and not run.system.generator.ends:
            names += run.system.modality.asks  # sizes go with what they belong to
        also = self.data.classes if run.system.conditioner.spec.names else ()  # a caption's class
        columns = {
            name: [items[i % len(items)][name] for i in range(n)]
            for name in dict.fromkeys([*names, *also])
            if name in items[0]
        }
        cond = {name: values for name, values in columns.items() if name in names}
        start = time.monotonic()
        outputs = self.draw(run, config, n, cond)
        self.seconds = time.monotonic() - start
        return self.metrics.samples(outputs, columns if cond else {})

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
        means without each field of the latent in turn, which then has its average value."""
        system = self.run.system
        fields = list(system.autoencoder.spec.fields)
        lost = {f"without {name}": name for name in fields if len(fields) > 1}
        outputs: dict[str, list[Any]] = {"mean": [], "sample": [], **{row: [] for row in lost}}
        originals = []
        for index, batch in enumerate(self._held_out()):
            originals.append(system.modality.originals(batch).cpu())
            posterior = system.autoencoder.encode(batch)
            noise = Noise.of((self.config["seed"], 94, index), posterior.mean.batch)
            whole = system.normaliser.encode(posterior.mean)
            outputs["mean"].append(system.decode(whole).cpu())
            outputs["sample"].append(system.autoencoder.decode(posterior.sample(noise)).cpu())
            for row, name in lost.items():
                partial = whole.replace(**{name: torch.zeros_like(whole[name])})
                outputs[row].append(system.decode(partial).cpu())
        join, judge = system.modality.join, self.metrics.reconstructions
        return {row: judge(join(originals), join(pieces)) for row, pieces in outputs.items()}

    @torch.no_grad()
    def latents(self) -> dict[str, float]:
        """Does the latent do anything? Its rate, and how many of its dimensions carry it."""
        system, rates, samples = self.run.system, [], []
        for index, batch in enumerate(self._held_out()):
            posterior = system.autoencoder.encode(batch)
            noise = Noise.of((self.config["seed"], 93, index), posterior.mean.batch)
            samples.append(system.normaliser.encode(posterior.sample(noise)))
            if posterior.log_std is not None:
                rates.append(system.normaliser.posterior(posterior))
        return {**rate(rates), **effective_dimensions(samples)}

    def likelihood(self, samples: int) -> dict[str, float]:
        """The exact likelihood of held-out latents, by the probability flow of the model.

        Of normalised latents with Gaussian noise at the log-SNR `LOG_SNR`, unguided, under their
        own conditions, in nats per sample and bits per dimension.
        """
        if samples < 1:
            return {}
        if (codebook := self.run.system.autoencoder.codebook()) is not None:
            return self.token_bound(samples, codebook)
        system, nats, bits = self.run.system, [], []
        for index, batch in enumerate(self._held_out(samples)):
            posterior = system.autoencoder.encode(batch)
            noise = Noise.of((self.config["seed"], 95, index), posterior.mean.batch)
            x0 = system.normaliser.encode(posterior.sample(noise))
            x0 = x0 + math.exp(-LOG_SNR / 2) * noise.like(x0)
            cond = system.condition(system.columns(batch))
            log_p = system.generator.log_likelihood(x0, cond, noise, FLOW_STEPS, LOG_SNR)
            nats.append(-log_p)
            bits.append(-log_p / (x0.dim.clamp(min=1) * math.log(2)))
        figures = {"latent_nll_nats": nats, "latent_bits_per_dimension": bits}
        return {name: float(torch.cat(values).mean()) for name, values in figures.items()}

    def token_bound(self, samples: int, codebook: Codebook) -> dict[str, float]:
        """An upper bound of the held-out data's negative log-likelihood, unguided, sizes included:
        nats per sample, and bits per token (or what the modality counts) with a standard error."""
        system, nats, counts, unit = self.run.system, [], [], ""
        for index, batch in enumerate(self._held_out(samples)):
            x0 = system.normaliser.encode(system.autoencoder.encode(batch).mean)
            noise = Noise.of((self.config["seed"], 95, index), x0.batch)
            cond = system.condition(system.columns(batch))
            bound = system.generator.bound(x0, cond, noise, codebook)
            if not system.generator.ends:  # which is told the sizes
                bound = bound + system.modality.size_nats(x0).to(bound)
            unit, count = system.modality.unit(x0)
            nats.append(bound.cpu())
            counts.append(count.cpu())
        total, count = torch.cat(nats).double(), torch.cat(counts).double()
        rate = total.sum() / count.sum()
        error = (total - rate * count).std() / (len(total) ** 0.5 * count.mean())
        bits = {"": rate / math.log(2), "_error": error / math.log(2)}
        named = {f"bound_bits_per_{unit}{which}": float(value) for which, value in bits.items()}
        named[f"training_{unit}s"] = self._seen() * float(count.mean())  # about
        return {"bound_nats": float(total.mean()), **named}

    # ---- report -------------------------------------------------------------------------------
    def report(self, name: str, rows: Rows, reconstructions: Rows, other: dict[str, float]) -> None:
        """Prints tables, and writes them as JSON and Markdown."""
        config = self.config
        how = f"{config['n']} samples, seed {config['seed']}, {self._way()}"
        tables = {how: rows, "reconstruction of held-out data": reconstructions}
        if other:
            tables["latents and speed"] = {"": other}
        text = "\n\n".join(f"{title}\n\n{_table(table)}" for title, table in tables.items())
        text = "\n\n".join([text, *(self.metrics.notes if len(rows) > 1 else ())])
        print(text)
        values = {
            "how": how,
            "samples": rows,
            "reconstruction": reconstructions,
            "other": other,
        }
        save_text(self.folder / f"{name}.json", json.dumps(values, indent=2) + "\n")
        save_text(self.folder / f"{name}.md", f"# {name} of {config['run']}\n\n{text}\n")
        print(f"\nwritten to {self.folder / name}.json and .md")

    def _way(self) -> str:
        """How samples were drawn, in words."""
        config, told = self.config, list[str]()
        if not self.run.system.generator.ends:
            scale = (config["guidance"] or {}).get("scale", "none")
            told = [config["solver"]["name"], f"{config['steps']} steps", f"guidance {scale}"]
        if config["temperature"] is not None:
            told.append(f"temperature {config['temperature']}")
        return ", ".join(told) or type(self.run.system.generator).__name__.lower()

    def _seen(self) -> float:
        """How many samples the generator learned from, copies counted."""
        settings = self.run.config["training"]["diffusion"]
        return float(settings["steps"] * settings["batch"])


def _table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown with a row for each figure and a column for each set."""
    figures = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [["", *rows], ["---"] * (len(rows) + 1)]
    for name in figures:
        values = (row.get(name) for row in rows.values())
        lines.append([name, *("" if v is None else f"{v:.4g}" for v in values)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    padded = ([cell.ljust(w) for cell, w in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)
