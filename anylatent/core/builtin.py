"""The parts that come with the core: importing this module registers them."""

from anylatent.core.registry import discover

ROOMS = (
    "latents",
    "process",
    "modality",
    "nn",
    "autoencoders",
    "denoisers",
    "solvers",
    "guidance",
    "inverse",
    "objectives",
    "likelihood",
    "generators",
    "runs.sources",
    "training.optimizers",
    "training.stages",
    "cli.commands",
)

for room in ROOMS:
    discover(f"anylatent.core.{room}")
