"""Data sets of text: verses, SMILES, definitions, and any file or folder."""

from anylatent.modalities.text.data.base import TextData, TextSet
from anylatent.modalities.text.data.documents import Documents
from anylatent.modalities.text.data.file import TextFile
from anylatent.modalities.text.data.kjv import Kjv
from anylatent.modalities.text.data.smiles import Smiles
from anylatent.modalities.text.data.wordnet import WordNet

__all__ = ["Documents", "Kjv", "Smiles", "TextData", "TextFile", "TextSet", "WordNet"]
