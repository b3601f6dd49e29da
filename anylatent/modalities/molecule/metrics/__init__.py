"""Figures about molecules: stability, validity, novelty, and distances of their geometry."""

from anylatent.modalities.molecule.metrics.chemistry import Verdict, connected, judge, stability
from anylatent.modalities.molecule.metrics.completions import MoleculeCompletions
from anylatent.modalities.molecule.metrics.geometry import Geometry
from anylatent.modalities.molecule.metrics.references import References, cloud, references_of
from anylatent.modalities.molecule.metrics.suite import (
    Chemistry,
    Distances,
    MoleculeMetric,
    MoleculesRestored,
    PropertyErrors,
    Published,
)

__all__ = [
    "Chemistry",
    "Distances",
    "Geometry",
    "MoleculeCompletions",
    "MoleculeMetric",
    "MoleculesRestored",
    "PropertyErrors",
    "Published",
    "References",
    "Verdict",
    "cloud",
    "connected",
    "judge",
    "references_of",
    "stability",
]
