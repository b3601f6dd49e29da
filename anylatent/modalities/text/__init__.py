"""The text modality: importing it registers its parts."""

from anylatent.core.nn.bottleneck import BOTTLENECK
from anylatent.core.nn.embedding import FEATURES
from anylatent.core.registry import register
from anylatent.modalities.text import facts as facts
from anylatent.modalities.text.autoencoder import LearnedEmbedding, UnitEmbedding
from anylatent.modalities.text.backbone import Transformer
from anylatent.modalities.text.data import Kjv, Smiles, TextFile, WordNet
from anylatent.modalities.text.metrics import (
    Classes,
    Copies,
    Likelihood,
    NGrams,
    SmilesShares,
    TextsRestored,
)
from anylatent.modalities.text.modality import TextModality
from anylatent.modalities.text.sequence import SequenceAutoencoder

register("modality", "text")(TextModality)
register("data", "kjv")(Kjv)
register("data", "smiles")(Smiles)
register("data", "wordnet")(WordNet)
register("data", "text_file")(TextFile)
register("autoencoder", "embedding")(LearnedEmbedding)
register("autoencoder", "unit_embedding")(UnitEmbedding)
register("autoencoder", "sequence", parts=BOTTLENECK)(SequenceAutoencoder)
register("backbone", "transformer", parts=FEATURES)(Transformer)
register("metric", "ngrams")(NGrams)
register("metric", "text_likelihood")(Likelihood)
register("metric", "text_copies")(Copies)
register("metric", "smiles_shares")(SmilesShares)
register("metric", "text_classes")(Classes)
register("metric", "texts_restored")(TextsRestored)
