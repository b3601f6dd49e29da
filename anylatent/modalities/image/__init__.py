"""The image modality: importing it registers its parts."""

from anylatent.core.nn.embedding import FEATURES
from anylatent.core.registry import register
from anylatent.modalities.image.autoencoder import PARTS, ConvAutoencoder
from anylatent.modalities.image.data import Folder, Mnist, OpenMoji
from anylatent.modalities.image.discriminator import PatchDiscriminator
from anylatent.modalities.image.dit import DiT
from anylatent.modalities.image.metrics import ClassAccuracy, Frechet, Memorisation, Restoration
from anylatent.modalities.image.modality import ImageModality
from anylatent.modalities.shared.perceptual import Perceptual

register("modality", "image")(ImageModality)
register("data", "openmoji")(OpenMoji)
register("data", "mnist")(Mnist)
register("data", "folder")(Folder)
register("autoencoder", "conv", parts=PARTS)(ConvAutoencoder)
register("perceptual", "lpips")(Perceptual)
register("adversary", "patch")(PatchDiscriminator)
register("backbone", "dit", parts=FEATURES)(DiT)
register("metric", "frechet")(Frechet)
register("metric", "memorisation")(Memorisation)
register("metric", "picture_classes")(ClassAccuracy)
register("metric", "pictures_restored")(Restoration)
