"""The second stage: a generator on cached posteriors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler

from anylatent.core.latents import Condition, Latent, Noise, Stream
from anylatent.core.registry import register
from anylatent.core.runs import Context, System, completed, sample
from anylatent.core.support.files import UserError
from anylatent.core.training.encoding import Encoder, check_copies, latents
from anylatent.core.training.settings import GeneratorSettings, StageSettings
from anylatent.core.training.stages.base import Descend, Stage, Terms, Training, learning
from anylatent.core.training.step_sampler import StepSampler
from anylatent.core.training.windows import check_windows, windowed


@dataclass(frozen=True)
class DiffusionSettings(GeneratorSettings):
    """See `GeneratorSettings`. With `copies` above 1, the stage learns from that many augmented
    copies of each item, changed as the modality says; with 1 from the items as they are. With a
    `window`, from that many entries in a row of each item of variable length, at a place drawn anew
    at each step, and from shorter items whole; by default as the data say, from whole items where
    they say nothing; and a share `singles` of the steps learns from single entries, as a model of
    clips does from pictures (2204.03458). With `together=false`
    the parts of a generator, such as the stages of a cascade, learn one after the other, each for
    all these steps."""

    steps: int = 10000
    batch: int = 128
    warmup: int = 200
    decay: float = 0.5
    copies: int = 1
    window: int | None = None
    singles: float = 0.0
    together: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.copies < 1:
            raise ValueError(f"need copies >= 1, got {self.copies}")
        if self.window is not None and self.window < 1:
            raise ValueError(f"need window >= 1, got {self.window}")
        if not 0 <= self.singles < 1:
            raise ValueError(f"singles={self.singles}: a share of the steps, from 0 to less than 1")


@register("stage", "diffusion")
class DiffusionStage(Stage):
    """Trains the generator on cached posteriors, sampled and normalised, and on the conditions
    beside them, varied and dropped; and a conditioner that learns."""

    name, stream = "diffusion", Stream.DIFFUSION
    needs = ("autoencoder",)
    completes = True
    settings_type = DiffusionSettings
    settings: DiffusionSettings

    def __init__(self, training: Training, settings: StageSettings) -> None:
        super().__init__(training, settings)
        left = [name for name in self._learners() if training.left(_label(name))]
        self.learner = left[0] if left else None
        self.first, self.last = len(left) == len(self._learners()), len(left) < 2
        if self.learner is not None:
            self.label = _label(self.learner)
        check_copies(training, self.settings.copies)
        self.window = self._window()
        self._check_given()

    def _window(self) -> int | None:
        """That of the settings, else of the data where latents can be cut. Raises UserError for
        one of the settings where they can't."""
        own = self.settings.window
        try:
            check_windows(self.system.autoencoder.spec)
        except ValueError as error:
            if own is not None:
                raise UserError(f"training.diffusion.window={own}: {error}") from None
            size = None
            self._check_shortest()
        else:
            size = self.training.data.window if own is None else own
        if size is None and self.settings.singles:
            raise UserError(
                f"training.diffusion.singles={self.settings.singles} is a share of the steps that "
                "learn from windows: give training.diffusion.window"
            )
        return size

    def _check_shortest(self) -> None:
        """Raises what the autoencoder says of items that are too short for latents of one size, of
        which no windows are drawn."""
        lengths = getattr(self.training.data.train(), "lengths", None)
        if lengths is not None and self.training.left(self.name):
            Encoder(self.training, 1)([int(lengths.argmin())])
            self.system.cpu()  # as all that encodes leaves it

    def _check_given(self) -> None:
        """Raises UserError where as many entries are to be given as there are."""
        rule = getattr(self.system.generator, "masking", None)
        given = getattr(rule, "entries", None)
        if self.window is not None and given is not None and given >= self.window:
            raise UserError(
                f"objective.masking.entries={given}: of windows of {self.window} entries fewer can "
                "be given, so that something is left to find"
            )

    def _learners(self) -> Mapping[str, nn.Module]:
        """The members of the generator that learn one after the other."""
        members = {} if self.settings.together else self.system.generator.members
        return {name: member for name, member in members.items() if name}

    def networks(self) -> dict[str, nn.Module]:
        return generating(self.system)

    def optimisers(self) -> dict[str, Iterable[nn.Parameter]]:
        """A conditioner learns with the first of several members, and stays so for the others."""
        if self.learner is None:
            return super().optimisers()
        own: list[nn.Module] = [self.system.generator.members[self.learner]]
        return {"all": learning([*own, *([self.system.conditioner] if self.first else [])])}

    @property
    def notes(self) -> tuple[str, ...]:
        own = () if self.learner is None else (self.label,)
        return (*own, *([self.name] if self.last else []))

    def dataset(self) -> Dataset[Any]:
        found = latents(self.training, self.settings.copies)
        self.lengths = found.lengths
        return found

    def sampler(self, steps: StepSampler) -> Sampler[Any]:
        return windowed(steps, self.lengths, self.window, self.settings.singles)

    def step(self, batch: Any, noise: Noise, number: int, descend: Descend) -> Terms:
        posterior, cond = batch
        x0 = self.system.normaliser.encode(posterior.sample(noise))
        cond = self.system.finished(cond, noise)
        cond = cond.drop(self.settings.drop, noise) if cond is not None else None
        loss = loss_of(self.system, self.learner, x0, cond, noise)
        descend("all", loss)
        return {"loss": loss}

    def figures(self) -> dict[str, float]:
        return {"held_out_loss": held_out_loss(self.training, self.learner)}

    def draw(self, folder: Path, number: int) -> None:
        """Samples under the conditions of held-out data."""
        draw_samples(self.training, folder / f"samples_{number:06d}.png")


def generating(system: System) -> dict[str, nn.Module]:
    """What learns by the generator's loss: the generator, and a conditioner that learns."""
    found: dict[str, nn.Module] = {"generator": system.generator}
    if system.conditioner.learns:
        found["conditioner"] = system.conditioner
    return found


def draw_samples(training: Training, path: Path) -> None:
    """A picture of samples, as many as are asked for, under the conditions of held-out data; of
    what they are completed to, where the model learns that."""
    system, config = training.system, training.config
    sampler = Context(system.generator.times).sampler(config.sampling)
    batch = training.held_out(config.pictures.samples)
    size = next(len(value) for value in batch.values())
    noise, masking = Noise.of((config.seed, Stream.SAMPLES), size), system.generator.masking
    if masking is None:
        outputs = sample(system, sampler, noise, system.columns(batch))
    else:
        outputs, _ = completed(system, sampler, noise, batch, masking)
    outputs.show().save(path)


def _label(learner: str) -> str:
    return f"{DiffusionStage.name}.{learner}"


def loss_of(
    system: System, learner: str | None, x0: Latent, cond: Condition | None, noise: Noise
) -> Tensor:
    """The mean loss of a batch: of the generator, or of one part of it."""
    generator = system.generator
    each = generator.loss if learner is None else partial(generator.loss_of, learner)
    return each(x0, cond, noise).mean()


def held_out_loss(training: Training, learner: str | None = None) -> float:
    """The generator's loss, or that of one part of it, on held-out data under noise that is the
    same at every step."""
    system, batch = training.system, training.held_out(256)
    size = next(len(value) for value in batch.values())
    noise = Noise.of((training.config.seed, Stream.HELD_OUT), size)
    x0 = system.latents(batch, noise)
    cond = system.condition(system.columns(batch), noise)
    return float(loss_of(system, learner, x0, cond, noise))
