"""Solvers: from noise to data along a grid of times."""

from anylatent.core.solvers.base import Solver, Step, solve
from anylatent.core.solvers.ddim import DDIM, ddpm, euler
from anylatent.core.solvers.dpmpp import DPMpp2M
from anylatent.core.solvers.heun import Heun

__all__ = ["DDIM", "DPMpp2M", "Heun", "Solver", "Step", "ddpm", "euler", "solve"]
