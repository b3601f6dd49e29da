"""`anylatent train`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def run(config: Mapping[str, Any]) -> None:
    from anylatent.core.denoisers import GaussianDenoiser
    from anylatent.core.registry import build
    from anylatent.core.runs import sampling_parts
    from anylatent.core.training.loop import train

    schedule = build("schedule", config["schedule"])
    _, grid, guidance = sampling_parts(config)  # what only sampling reads fails now, not in hours
    grid(schedule, config["steps"])
    if guidance is not None:
        guidance(GaussianDenoiser(schedule, 0.0, 1.0))
    path, how = train(config), ""
    if config["stage"] == "classifier":
        how = f" guidance=classifier guidance.scale=2 cond.{config['classifier']['label']}=..."
    print(f"trained: {path}. Next: anylatent sample run={path}{how}")
