"""`anylatent invert`: data to the noise that a trained model makes them from, and back."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anylatent.core.generators import schedules_of
from anylatent.core.latents import Latent, Noise, Started, Stream
from anylatent.core.modality import Metrics, Outputs, compare, join, move
from anylatent.core.reports.evaluation import Rows, table
from anylatent.core.reports.inverted_data import InvertedData
from anylatent.core.reports.normality import normality
from anylatent.core.reports.solvers.samples import Counting
from anylatent.core.runs import (
    Computing,
    Node,
    Run,
    SamplingConfig,
    StoredNoise,
    inline,
    precisely,
)
from anylatent.core.support.files import UserError, replacing, save_text
from anylatent.core.support.progress import bar

SHOWN = 16
"""Samples on the picture of originals and what is restored."""


@dataclass(frozen=True)
class InversionConfig:
    """What `invert` is told: n items of the data, in an order of the seed. `cond` has conditions in
    place of the data's own. `run_is` names the modality that the run must be of,
    `base` where what it leans on has moved to."""

    run: str
    data: Node
    sampling: SamplingConfig = inline()
    computing: Computing = inline(Computing)
    run_is: str | None = None
    base: str | None = None
    n: int = 8
    seed: int = 0
    batch: int = 64
    cond: Mapping[str, Any] = field(default_factory=dict)
    out: str | None = None


@dataclass(frozen=True)
class RoundTrip:
    """Latents of data, the noise they go to, and the latents it leads back to; outputs of each."""

    x0: Latent
    noise: Latent
    back: Latent
    originals: Outputs
    decoded: Outputs
    restored: Outputs


class Inversion:
    """Inverts data of a run, or other data of their kind, and writes the noise and a report.

    Raises UserError for a solver that draws noise, a generator without one, and data that don't fit
    the run; see `InvertedData`.
    """

    def __init__(self, config: InversionConfig) -> None:
        self.config, sampling = config, config.sampling
        for key, value, least in (
            ("n", config.n, 1),
            ("batch", config.batch, 1),
            ("steps", sampling.steps, 2),
        ):
            if value < least:
                raise UserError(f"{key}={value}: at least {least} is needed to invert")
        self.run = Run.load(config.run, config.computing, config.run_is, config.base)
        if not schedules_of(self.run.system.generator):
            raise UserError(
                f"{config.run} has a generator={self.run.config.model.generator['name']}, which "
                "writes samples entry by entry: they come from no noise that could be found"
            )
        guidance = self.run.guided(sampling.guidance)
        self.sampler = replace(self.run.context.sampler(sampling), guidance=guidance)
        if self.sampler.solver.stochastic:
            raise UserError(
                f"solver={sampling.solver['name']} draws noise as it is set, and leads from one "
                "start to many ends: only a deterministic solver can be inverted, such as "
                "solver=dpmpp_2m, heun or ddim"
            )
        self.own = InvertedData(self.run, config.data, config.n, config.seed)
        self.items = self.own.items
        self.columns = self.own.columns(config.cond, sampling.guidance)
        self.folder = Path(config.out or Path(config.run) / "inversion")

    def write(self) -> None:
        """Inverts, solves back, and writes the noise, the data, a picture and the report."""
        up, back = Counting(self.sampler.solver), Counting(self.sampler.solver)
        n, batch = len(self.items), self.config.batch
        parts = [slice(start, min(start + batch, n)) for start in range(0, n, batch)]
        told = bar("inverting", len(parts) * self._steps())
        with told as advance, precisely(self.run.system, self.sampler):
            trips = [self._trip(part, up, back, advance) for part in parts]
        found = self._joined(trips)
        stored = StoredNoise(found.noise, self.config.sampling, self.columns, self.own.places)
        stored.save(self.folder / "noise.safetensors")
        names = [f"{i:05d}" for i in range(n)]
        for made, place in ((found.originals, "originals"), (found.restored, "restored")):
            _alone(self.folder / place, made.save(self.folder / place, names))
        with replacing(self.folder / "comparison.png") as temporary:
            picture = compare(found.originals[:SHOWN], found.restored[:SHOWN])
            picture.save(temporary, format="PNG")
        self._report(found, {"up": up.total / n, "back": back.total / n})

    # ---- there and back -----------------------------------------------------------------------
    @torch.no_grad()
    def _trip(
        self, part: slice, up: Counting, back: Counting, advance: Callable[[], None]
    ) -> RoundTrip:
        system = self.run.system
        batch = move(system.modality.collate(self.items[part]), system.device)
        x0 = system.normaliser.encode(system.autoencoder.encode(batch).mean)
        cond = system.condition({name: values[part] for name, values in self.columns.items()})
        note = lambda i, t, x: advance()  # noqa: E731
        seeds = [(0, i) for i in range(part.start, part.stop)]
        upwards = replace(self.sampler, solver=up)
        noise = system.generator.invert(x0, cond, upwards, Noise(seeds), note)
        start = Started(seeds, noise)
        downwards = replace(self.sampler, solver=back)
        found = system.generator.sample(x0.zeros(), cond, downwards, start, note)
        outputs = system.modality.originals(batch), system.decode(x0), system.decode(found)
        return RoundTrip(
            x0.to("cpu"),
            noise.to("cpu"),
            found.to("cpu"),
            *(made.to("cpu") for made in outputs),
        )

    def _steps(self) -> int:
        """Of the way up, which leaves a step to sigma = 0 out, and back."""
        schedules = schedules_of(self.run.system.generator)
        clean = sum(float(schedule.sigma(0.0)) == 0 for schedule in schedules)
        return 2 * self.sampler.steps * len(schedules) - clean

    def _joined(self, trips: Sequence[RoundTrip]) -> RoundTrip:
        spec = trips[0].x0.spec
        return RoundTrip(
            spec.together([trip.x0 for trip in trips]),
            spec.together([trip.noise for trip in trips]),
            spec.together([trip.back for trip in trips]),
            join([trip.originals for trip in trips]),
            join([trip.decoded for trip in trips]),
            join([trip.restored for trip in trips]),
        )

    # ---- report -------------------------------------------------------------------------------
    def _report(self, found: RoundTrip, evaluations: Mapping[str, float]) -> None:
        sampling = self.config.sampling
        judge = Metrics.of(self.run.system.modality, self.own.data).reconstructions
        data = {"autoencoder": found.decoded, "inverted and restored": found.restored}
        fresh = Noise.of((0, Stream.FRESH), found.noise.batch).like(found.noise)
        tables: dict[str, Rows] = {
            "latents after the round trip, per degree of freedom": {"": errors(found)},
            "data against the originals": {k: judge(found.originals, v) for k, v in data.items()},
            "noise": {"inverted": normality(found.noise), "drawn": normality(fresh)},
            "evaluations of the denoiser, per sample": {"": dict(evaluations)},
        }
        guided = (sampling.guidance or {}).get("name", "none")
        how = (
            f"{found.x0.batch} samples, {sampling.solver['name']}, grid {sampling.grid['name']}, "
            f"{sampling.steps} steps, guidance {guided}, precision {self.run.precision}"
        )
        text = "\n\n".join(f"{title}\n\n{table(rows)}" for title, rows in tables.items())
        print(f"{how}\n\n{text}\n")
        values = {"how": how, **tables}
        save_text(self.folder / "inversion.json", json.dumps(values, indent=2) + "\n")
        title = f"# inversion of data by {self.config.run}"
        save_text(self.folder / "inversion.md", f"{title}\n\n{how}\n\n{text}\n")
        print(f"written to {self.folder}. Next: {self._next()}")

    def _next(self) -> str:
        """The command that makes samples of the noise, of other conditions where there are any."""
        edit = [f"cond.{name}=..." for name in list(self.columns)[:1]]
        if edit and self.sampler.guidance is None:
            edit += ["guidance=classifier_free", "guidance.scale=2"]
        told = [f"run={self.config.run}", f"noise={self.folder / 'noise.safetensors'}"]
        return " ".join(["anylatent sample", *map(shlex.quote, told), *edit])


def _alone(folder: Path, written: Sequence[Path]) -> None:
    """Removes what an inversion of more data left there, which has the names that its own have."""
    for path in folder.iterdir():
        if re.fullmatch(r"\d{5}(_\w+)?\.\w+", path.name) and path not in written:
            path.unlink()


def errors(found: RoundTrip) -> dict[str, float]:
    """Root mean square distances of the latents restored from those of the data, and their size."""
    square, dim = found.x0.mse(found.back), found.x0.dim
    figures = {"error": _root(square, dim), "error_worst": float(square.max().sqrt())}
    fields = list(found.x0.parts) if len(found.x0.parts) > 1 else []
    for name in fields:
        one, other = found.x0.take([name]), found.back.take([name])
        figures[f"error_{name}"] = _root(one.mse(other), one.dim)
    return figures | {"rms": _root(found.x0.mse(found.x0.zeros()), dim)}


def _root(squares: Tensor, dim: Tensor) -> float:
    return float(((squares * dim).sum() / dim.sum()).sqrt())
