"""Where the model of a run comes from, what it takes of it, and what of it learns."""

from anylatent.core.runs.base import Leaning
from anylatent.core.runs.sources.beginning import Beginning, Origin, begin
from anylatent.core.runs.sources.run import open_base, restore
from anylatent.core.runs.sources.source import Source, source_of
from anylatent.core.runs.sources.tuning import Tuning, extend, tuned

__all__ = [
    "Beginning",
    "Leaning",
    "Origin",
    "Source",
    "Tuning",
    "begin",
    "extend",
    "open_base",
    "restore",
    "source_of",
    "tuned",
]
