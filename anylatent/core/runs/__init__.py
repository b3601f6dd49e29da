"""Run directories, the model that a configuration describes, and samples of it."""

from anylatent.core.runs.classifiers import Classification, save_classifier
from anylatent.core.runs.config import Config
from anylatent.core.runs.directory import RunDirectory, first_process, is_free
from anylatent.core.runs.run import Run, load, per_sample
from anylatent.core.runs.sampling import guidances, guides, sampling_parts
from anylatent.core.runs.stored_noise import SETTINGS, StoredNoise, stored_settings, together
from anylatent.core.runs.system import System

__all__ = [
    "Classification",
    "Config",
    "Run",
    "RunDirectory",
    "SETTINGS",
    "StoredNoise",
    "System",
    "first_process",
    "guidances",
    "guides",
    "is_free",
    "load",
    "per_sample",
    "sampling_parts",
    "save_classifier",
    "stored_settings",
    "together",
]
