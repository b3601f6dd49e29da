"""Run directories, the model that a configuration describes, and samples of it."""

from anylatent.core.runs.classifiers import Classification
from anylatent.core.runs.computing import Computing
from anylatent.core.runs.config import ModelConfig, Node, RunConfig, SamplingConfig, inline, read
from anylatent.core.runs.directory import RunDirectory, Stages, first_process
from anylatent.core.runs.drawing import blank, completed, precisely, sample
from anylatent.core.runs.run import Run, load
from anylatent.core.runs.samples import SampleConfig, drawn, write_samples
from anylatent.core.runs.sampling import Context, guidances, solver_of
from anylatent.core.runs.stored_noise import StoredNoise
from anylatent.core.runs.system import System

__all__ = [
    "Classification",
    "Computing",
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
    "completed",
    "drawn",
    "first_process",
    "guidances",
    "inline",
    "load",
    "precisely",
    "read",
    "sample",
    "solver_of",
    "write_samples",
]
