"""A plugin for anylatent: the modality `levels`, whose latents have three fields, coarse to fine.

Each level is Gaussian given the one before, so that every figure of a cascade is known:

    top    (2,)    sign·0.5 + 0.8·e
    middle (4,)    0.9·(each number of top, twice) + 0.3·e
    bottom (4, 2)  -0.7·(each number of middle, twice) + 0.4·e
"""

import anylatent as al
from three_levels.data import LevelData
from three_levels.modality import LevelFigures, LevelModality, Levels

al.register("modality", "levels")(LevelModality)
al.register("data", "levels")(LevelData)
al.register("autoencoder", "levels")(Levels)
al.register("metric", "levels")(LevelFigures)
