"""Solvers: from noise to data along a grid of times."""

from anylatent.core.solvers.adaptive import Adaptive, AdaptiveSDE, DormandPrince
from anylatent.core.solvers.base import Callback, Solver, Step, invert, solve
from anylatent.core.solvers.ddim import DDIM, Learned, ddpm, euler, euler_ancestral
from anylatent.core.solvers.exponential import PLMS, Exponential
from anylatent.core.solvers.heun import Heun
from anylatent.core.solvers.paradigms import ParaDiGMS
from anylatent.core.solvers.pndm import PNDM
from anylatent.core.solvers.predictor_corrector import PredictorCorrector
from anylatent.core.solvers.runge_kutta import MOST_STEPS, NODES, attempt, excess, resized
from anylatent.core.solvers.single_step import SingleStep, Tableau

__all__ = [
    "Adaptive",
    "AdaptiveSDE",
    "Callback",
    "DDIM",
    "DormandPrince",
    "Exponential",
    "Heun",
    "Learned",
    "MOST_STEPS",
    "NODES",
    "PLMS",
    "PNDM",
    "ParaDiGMS",
    "PredictorCorrector",
    "SingleStep",
    "Solver",
    "Step",
    "Tableau",
    "attempt",
    "ddpm",
    "euler",
    "euler_ancestral",
    "excess",
    "invert",
    "resized",
    "solve",
]
