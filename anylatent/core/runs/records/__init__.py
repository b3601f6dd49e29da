"""What a run keeps of itself: who has it, what made it, and what it has learned from."""

from anylatent.core.runs.records.foreign import described_by
from anylatent.core.runs.records.known_split import digests
from anylatent.core.runs.records.learned import Learned, data_of, facts_of, measured, taught
from anylatent.core.runs.records.owner import owned, writing
from anylatent.core.runs.records.provenance import note

__all__ = [
    "Learned",
    "data_of",
    "described_by",
    "digests",
    "facts_of",
    "measured",
    "note",
    "owned",
    "taught",
    "writing",
]
