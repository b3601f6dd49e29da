"""The molecule modality: importing it registers its parts."""

from anylatent.core.nn.bottleneck import BOTTLENECK
from anylatent.core.nn.embedding import FEATURES
from anylatent.core.registry import register
from anylatent.modalities.molecule import facts as facts
from anylatent.modalities.molecule.autoencoder import GeoLDM
from anylatent.modalities.molecule.backbone import EGNNBackbone
from anylatent.modalities.molecule.conditioner import Properties
from anylatent.modalities.molecule.data import Components, MoleculeFolder, Qm9
from anylatent.modalities.molecule.metrics import (
    Chemistry,
    Distances,
    MoleculeCompletions,
    MoleculesRestored,
    PropertyErrors,
    Published,
)
from anylatent.modalities.molecule.modality import MoleculeModality
from anylatent.modalities.molecule.tensor_product import TensorProductNetwork

register("modality", "molecule")(MoleculeModality)
register("data", "qm9")(Qm9)
register("data", "components")(Components)
register("data", "molecule_folder")(MoleculeFolder)
register("conditioner", "properties")(Properties)
register("autoencoder", "geoldm", parts=BOTTLENECK)(GeoLDM)
register("backbone", "egnn", parts=FEATURES)(EGNNBackbone)
register("backbone", "tensor_product", parts=FEATURES)(TensorProductNetwork)
register("metric", "chemistry")(Chemistry)
register("metric", "molecule_geometry")(Distances)
register("metric", "property_errors")(PropertyErrors)
register("metric", "molecules_restored")(MoleculesRestored)
register("metric", "molecules_published")(Published)
register("metric", "molecule_completions")(MoleculeCompletions)
