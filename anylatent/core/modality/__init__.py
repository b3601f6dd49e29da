"""What the rest of the program asks of data of one kind: contracts, and conditions."""

from anylatent.core.modality.batch import Batch, Item, Outputs, move, pad_items
from anylatent.core.modality.conditioner import Conditioner
from anylatent.core.modality.conditioners import ClassLabel, column_entries, given
from anylatent.core.modality.data import Data
from anylatent.core.modality.metrics import Metrics
from anylatent.core.modality.modality import Modality, histogram_nats

__all__ = [
    "Batch",
    "ClassLabel",
    "Conditioner",
    "Data",
    "Item",
    "Metrics",
    "Modality",
    "Outputs",
    "column_entries",
    "given",
    "histogram_nats",
    "move",
    "pad_items",
]
