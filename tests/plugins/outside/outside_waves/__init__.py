"""A plugin for anylatent: the modality `waves`, and the backbone `perceptron` for any modality.

Importing it registers its parts. It uses the public names of `anylatent` only.
"""

import anylatent as al
from outside_waves.autoencoder import WaveAutoencoder
from outside_waves.backbone import Perceptron
from outside_waves.conditioner import Pitch
from outside_waves.data import Waves
from outside_waves.modality import WaveFigures, WaveModality

al.register("modality", "waves")(WaveModality)
al.register("metric", "waves")(WaveFigures)
al.register("data", "waves")(Waves)
al.register("conditioner", "pitch")(Pitch)
al.register("autoencoder", "waves")(WaveAutoencoder)
al.register("backbone", "perceptron")(Perceptron)
