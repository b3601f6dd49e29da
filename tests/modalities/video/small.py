"""Small networks of frames."""

from functools import partial

from anylatent.core.nn.unet import UNet
from anylatent.modalities.image.autoencoder import ConvAutoencoder
from anylatent.modalities.image.dit import DiT


def conv(shape=(1, 32, 32), modality=None, **settings):
    return ConvAutoencoder(tuple(shape), channels=16, blocks=1, heads=2, **settings)


UNET = partial(UNet, channels=32, multipliers=(1,), blocks=1, attention=(8,), embedding=32)
DIT = partial(DiT, width=32, depth=2, heads=2)
