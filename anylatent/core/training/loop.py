"""`anylatent train`: the autoencoder, the cache of its latents, then the diffusion model."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, Subset

from anylatent.core.latents import Latent, Noise
from anylatent.core.modality import Data, move
from anylatent.core.nn.backbone import Backbone
from anylatent.core.registry import build
from anylatent.core.runs import Config, RunDirectory, System, guides, sampling_parts
from anylatent.core.support.disk_cache import digest
from anylatent.core.support.files import UserError
from anylatent.core.support.progress import track
from anylatent.core.training.callbacks import Checkpoint, History, Pictures, Progress, Stop
from anylatent.core.training.latent_store import Entry, LatentCache, cached_latents
from anylatent.core.training.settings import StageSettings
from anylatent.core.training.stages.autoencoder import AutoencoderStage
from anylatent.core.training.stages.base import Stage
from anylatent.core.training.stages.classifier import ClassifierStage, accuracy, train_classifier
from anylatent.core.training.stages.diffusion import DiffusionStage
from anylatent.core.training.stages.joint import JointStage
from anylatent.core.training.step_sampler import by_length

STAGES = ("autoencoder", "diffusion", "all", "classifier")


def train(config: Config) -> Path:
    """Trains what `stage` asks for, going on where the run directory stopped; returns it."""
    if config["stage"] not in STAGES:
        raise UserError(f"stage={config['stage']} is unknown; choose one of {', '.join(STAGES)}")
    _quiet()
    data: Data = build("data", config["data"])
    if not len(data.held_out()):  # type: ignore[arg-type]
        raise UserError(
            "no data are held out, which training measures itself by: give data.held_out a "
            "fraction between 0 and 1, such as 0.1"
        )
    torch.manual_seed(config["seed"])
    training = Training(config, RunDirectory(Path(config["run"])), data)
    training.directory.claim(config, data.facts)  # only once everything could be built
    return training.run()


class Training:
    """One run: its configuration, directory, data and model."""

    def __init__(self, config: Config, directory: RunDirectory, data: Data) -> None:
        self.config, self.directory, self.data = config, directory, data
        self.system = System(config, data.facts, training=True)
        if self.system.autoencoder.joint and self.system.generator.ends:
            self.system.autoencoder.requires_grad_(False)  # it reads tokens, not their latents
        self._check_guidance()
        self.settings = {
            name: StageSettings(**{k: v for k, v in node.items() if k != "optimizer"})
            for name, node in config["training"].items()
        }

    def _check_guidance(self) -> None:
        """What sampling refuses fails now, not at the first picture."""
        wishes = self.system.conditioner.spec.names
        if self.system.generator.ends and wishes and guides(self.config.get("guidance")):
            raise UserError(
                f"{type(self.system.generator).__name__} knows no guidance: add guidance=none"
            )

    def run(self) -> Path:
        finished = self.directory.stage()
        if finished is not None:
            self.system.load_trained(self.directory.weights()[0])
        if self.config["stage"] == "classifier":
            if finished != "diffusion":
                raise UserError(
                    f"{self.directory.path} has no finished diffusion model yet, whose latents a "
                    "classifier learns from: train it first, with stage=all"
                )
            train_classifier(self)
            return self.directory.path
        if finished is None and self.config["autoencoder_from"] is not None:
            self.adopt_autoencoder(Path(self.config["autoencoder_from"]))
        elif finished is None:
            first = self._trainable(self.system.autoencoder) and not self._joint
            if self.config["stage"] == "diffusion" and first:
                raise UserError(
                    f"{self.directory.path} has no trained autoencoder yet: use stage=all, or "
                    "stage=autoencoder first"
                )
            self.train_autoencoder()
        if self.config["stage"] != "autoencoder" and finished != "diffusion":
            self.train_diffusion()
        return self.directory.path

    def adopt_autoencoder(self, path: Path) -> None:
        """Takes the trained autoencoder of another run, which must have the same settings."""
        tensors, _ = RunDirectory(path).weights()
        taken = {k: v for k, v in tensors.items() if k.startswith("autoencoder.")}
        own = {k: v for k, v in self.system.trained().items() if not k.startswith("autoencoder.")}
        self.system.load_trained({**own, **taken})
        self.directory.save(self.system.trained(), "autoencoder")

    @staticmethod
    def _trainable(module: torch.nn.Module) -> bool:
        return any(p.requires_grad for p in module.parameters())

    # ---- stages -------------------------------------------------------------------------------
    def train_autoencoder(self) -> None:
        if self._trainable(self.system.autoencoder) and not self._joint:
            stage = AutoencoderStage(
                self.system, self.data.train(), *self.plan("autoencoder"), self.config["seed"]
            )
            with _frozen(self.system.generator):
                self.fit(stage)
        self.directory.save(self.system.trained(), "autoencoder")

    def train_diffusion(self) -> None:
        self.compile(self.system.generator)
        plan = (*self.plan("diffusion"), self.config["seed"])
        if self._joint:
            self.fit(JointStage(self.system, self.data.train(), *plan))
        else:
            with _frozen(self.system.autoencoder):
                self.fit(DiffusionStage(self.system, self.latents(), *plan))
        self.directory.save(self.system.trained(), "diffusion")

    def compile(self, network: torch.nn.Module) -> None:
        """Compiles the backbones of a network where the trainer's settings say so."""
        if self.config["trainer"]["compile"]:
            for module in network.modules():
                if isinstance(module, Backbone):
                    module.compile()

    @property
    def _joint(self) -> bool:
        autoencoder = self.system.autoencoder
        return autoencoder.joint and self._trainable(autoencoder)

    def plan(self, name: str) -> tuple[StageSettings, Any]:
        """The settings and the optimiser of a stage."""
        node = self.config["training"][name]["optimizer"]
        return self.settings[name], build("optimizer", node)

    def fit(self, stage: Stage) -> None:
        """Trains a stage to its end and leaves the averaged weights in the system."""
        checkpoint = Checkpoint(
            self.directory.checkpoint(stage.name), self.config["checkpoint"]["seconds"]
        )
        if checkpoint.path.exists():
            stage.restore(self.directory.load_checkpoint(stage.name))
        stop, history = (
            Stop(),
            History(self.directory.path / "logs" / f"{stage.name}.csv", self.config["log_every"]),
        )
        pictures = Pictures(self.config["pictures"]["every"], self.draw, history)
        trainer = self.trainer(stage, [history, pictures, checkpoint, stop, Progress()])
        self.system.eval()
        stage.network().train()
        trainer.fit(stage)
        if stop.asked and stage.step < stage.settings.steps:
            if trainer.is_global_zero:
                checkpoint.save(stage)
            raise UserError(
                f"stopped at {stage.name} step {stage.step} of {stage.settings.steps}; the same "
                "command continues"
            )
        stage.average.to(torch.device("cpu"))
        self.system.cpu()
        stage.average.swap()
        self.system.eval()

    def trainer(self, stage: Stage, callbacks: list[Any]) -> pl.Trainer:
        options = {k: v for k, v in self.config["trainer"].items() if k != "compile"}
        if str(options["precision"]).startswith("16"):
            raise UserError("trainer.precision: use 32 or bf16-mixed; float16 needs loss scaling")
        if options["strategy"] == "ddp" and stage.idle:
            options["strategy"] = "ddp_find_unused_parameters_true"
        return pl.Trainer(
            **options,
            max_epochs=1,
            log_every_n_steps=1,
            logger=TensorBoardLogger(self.directory.path / "logs", name="", version=stage.name),
            callbacks=callbacks,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )

    # ---- latents ------------------------------------------------------------------------------
    def latents(self) -> LatentCache:
        """The training data's posteriors and conditions; fits the normaliser."""
        cache, system = self.posteriors(), self.system
        if system.autoencoder.codebook() is None:
            system.normaliser.fit(posterior for posterior, _ in cache.batches(256))
        return cache

    def posteriors(self) -> LatentCache:
        """The training data's posteriors and conditions, computed once."""
        system, config = self.system, self.config
        made_by = {
            "data": self.data.fingerprint,
            "modality": config["modality"],
            "autoencoder": config["autoencoder"],
            "conditioner": [config["conditioner"], self.data.facts],
        }
        weights = {k: v for k, v in system.trained().items() if k.startswith("autoencoder.")}
        with _first_process_first():
            spec, order = system.autoencoder.spec, by_length(self.data.train())
            return cached_latents(spec, digest(made_by, weights), self.encode, order)

    @torch.no_grad()
    def encode(self) -> Iterable[Entry]:
        """Posteriors and conditions of the training data, batch by batch, with a progress bar.

        Data of variable length go from short to long, so that hardly anything is padding.
        """
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        system, dataset = self.system.eval().to(device), self.data.train()
        order = by_length(dataset)
        indices = torch.arange(len(dataset)) if order is None else order  # type: ignore[arg-type]
        batches = [batch.tolist() for batch in torch.split(indices, 64)]
        loader = DataLoader(dataset, batch_sampler=batches, collate_fn=system.modality.collate)
        for batch in track(loader, "encoding", len(loader)):
            moved = move(batch, device)
            yield system.autoencoder.encode(moved), system.condition(system.columns(moved))
        system.cpu()

    # ---- pictures -----------------------------------------------------------------------------
    def draw(self, stage: Stage) -> dict[str, float]:
        """Reconstructions or samples into the run, and the held-out loss; of a classifier its
        held-out accuracy."""
        if isinstance(stage, ClassifierStage):
            found = accuracy(
                self.system, stage.made, self.data.held_out(), self.config["seed"], 256
            )
            return {f"accuracy_at_{level:g}": value for level, value in found.items()}
        folder = self.directory.path / "pictures"
        folder.mkdir(exist_ok=True)
        if stage.name == "autoencoder":
            return self.draw_reconstructions(stage, folder)
        return self.draw_samples(stage, folder)

    def held_out(self, count: int) -> Mapping[str, Any]:
        dataset = self.data.held_out()
        items = Subset(dataset, range(min(count, len(dataset))))  # type: ignore[arg-type]
        return self.system.modality.collate([items[i] for i in range(len(items))])

    def draw_reconstructions(self, stage: Stage, folder: Path) -> dict[str, float]:
        system, count = self.system, self.config["pictures"]["samples"]
        batch = move(self.held_out(count), stage.device)
        noise = Noise.of((self.config["seed"], 90), self._size(batch))
        terms, _ = system.autoencoder.loss(batch, noise, 0)
        outputs = system.autoencoder.decode(system.autoencoder.encode(batch).mean)
        picture = system.modality.compare(system.modality.originals(batch), outputs)
        picture.save(folder / f"reconstructions_{stage.step:06d}.png")
        return {f"held_out_{name}": float(term.mean()) for name, term in terms.items()}

    def _size(self, batch: Mapping[str, Any]) -> int:
        return next(len(value) for value in batch.values())

    def draw_samples(self, stage: Stage, folder: Path) -> dict[str, float]:
        system, config = self.system, self.config
        solver, grid, guidance = sampling_parts(config, system.generator.times)
        batch = move(self.held_out(config["pictures"]["samples"]), stage.device)
        noise = Noise.of((config["seed"], 91), self._size(batch))
        outputs = system.sample(
            noise, system.columns(batch), solver, grid, config["steps"], guidance
        )
        system.modality.show(outputs).save(folder / f"samples_{stage.step:06d}.png")
        return {"held_out_loss": self.held_out_loss(stage)}

    def held_out_loss(self, stage: Stage) -> float:
        """The diffusion loss on held-out data under noise that is the same at every step."""
        system = self.system
        batch = move(self.held_out(256), stage.device)
        noise = Noise.of((self.config["seed"], 92), self._size(batch))
        x0: Latent = system.normaliser.encode(system.autoencoder.encode(batch).sample(noise))
        cond = system.condition(system.columns(batch))
        return float(system.generator.loss(x0, cond, noise).mean())


@contextmanager
def _frozen(module: torch.nn.Module) -> Iterator[None]:
    """No gradients for a module that a stage does not use; DDP waits for every other one."""
    learning = [p for p in module.parameters() if p.requires_grad]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


@contextmanager
def _first_process_first() -> Iterator[None]:
    """Of several processes, the first runs the block before the others, which find its files."""
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    if several and torch.distributed.get_rank() > 0:
        torch.distributed.barrier()
    yield
    if several and torch.distributed.get_rank() == 0:
        torch.distributed.barrier()


def _quiet() -> None:
    """Lightning's remarks that ask nothing of the user."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*`isinstance.treespec, LeafSpec.` is deprecated.*")
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
