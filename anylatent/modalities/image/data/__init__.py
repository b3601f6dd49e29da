"""Data sets of pictures: OpenMoji, handwritten digits, and any folder."""

from anylatent.modalities.image.data.base import PictureData, Pictures, Table
from anylatent.modalities.image.data.folder import Folder
from anylatent.modalities.image.data.mnist import Mnist
from anylatent.modalities.image.data.openmoji import OpenMoji

__all__ = ["Folder", "Mnist", "OpenMoji", "PictureData", "Pictures", "Table"]
