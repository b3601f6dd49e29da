"""What the rest of the program asks of data of one kind: contracts, and conditions."""

from anylatent.core.modality.asked import asked_of
from anylatent.core.modality.batch import Batch, Item, fetch, move, pad_items
from anylatent.core.modality.conditioner import Conditioner, LatentEncoder
from anylatent.core.modality.conditioners import ClassLabel, column_entries, given
from anylatent.core.modality.data import Data
from anylatent.core.modality.data_space import DataSpace
from anylatent.core.modality.given_data import Given
from anylatent.core.modality.metrics import Metric, Metrics
from anylatent.core.modality.modality import Modality
from anylatent.core.modality.outputs import Outputs, compare, exact, join
from anylatent.core.modality.sizes import FixedSizes, Sizes, histogram_nats

__all__ = [
    "Batch",
    "ClassLabel",
    "Conditioner",
    "Data",
    "DataSpace",
    "FixedSizes",
    "Given",
    "Item",
    "LatentEncoder",
    "Metric",
    "Metrics",
    "Modality",
    "Outputs",
    "Sizes",
    "asked_of",
    "column_entries",
    "compare",
    "exact",
    "fetch",
    "given",
    "histogram_nats",
    "join",
    "move",
    "pad_items",
]
