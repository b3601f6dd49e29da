"""Run directories, the model that a configuration describes, and samples of it."""

from anylatent.core.runs.classifiers import Classification, save_classifier
from anylatent.core.runs.config import ModelConfig, Node, RunConfig, SamplingConfig, inline, read
from anylatent.core.runs.directory import FIXED, RunDirectory, Stages, first_process
from anylatent.core.runs.drawing import blank, sample
from anylatent.core.runs.run import Run, load, per_sample
from anylatent.core.runs.samples import SampleConfig, drawn, write_samples
from anylatent.core.runs.sampling import Context, guidances, solver_of
from anylatent.core.runs.stored_noise import StoredNoise, stored_config
from anylatent.core.runs.system import System

__all__ = [
    "Classification",
    "FIXED",
    "Context",
    "ModelConfig",
    "Node",
    "Run",
    "RunConfig",
    "RunDirectory",
    "SampleConfig",
    "SamplingConfig",
    "Stages",
    "StoredNoise",
    "System",
    "blank",
    "drawn",
    "first_process",
    "guidances",
    "inline",
    "load",
    "per_sample",
    "read",
    "sample",
    "save_classifier",
    "solver_of",
    "stored_config",
    "write_samples",
]
