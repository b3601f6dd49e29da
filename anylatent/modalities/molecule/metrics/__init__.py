"""Figures about molecules: stability, validity, novelty, and distances of their geometry."""

from anylatent.modalities.molecule.metrics.chemistry import Verdict, connected, judge, stability
from anylatent.modalities.molecule.metrics.geometry import Geometry
from anylatent.modalities.molecule.metrics.suite import MoleculeMetrics, cloud

__all__ = [
    "Geometry",
    "MoleculeMetrics",
    "Verdict",
    "cloud",
    "connected",
    "judge",
    "stability",
]
