"""What a run keeps of itself: who has it, what made it, and what it has learned from."""

from anylatent.core.runs.records.foreign import described_by
from anylatent.core.runs.records.learned import Learned, measured, taught
from anylatent.core.runs.records.owner import owned, writing
from anylatent.core.runs.records.provenance import note

__all__ = ["Learned", "described_by", "measured", "note", "owned", "taught", "writing"]
