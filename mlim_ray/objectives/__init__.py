"""One file per loss; each returns sums and counts per record. `losses.py` puts a run's together."""

from mlim_ray.objectives.inputs import BatchTensors, Peers
from mlim_ray.objectives.losses import Losses, loss_names
from mlim_ray.objectives.mlm import mlm_terms
from mlim_ray.objectives.objective import Objective, Pass
from mlim_ray.objectives.recon import pixels_of_cells, recon_terms
from mlim_ray.objectives.terms import LossTerms

__all__ = [
    "BatchTensors",
    "LossTerms",
    "Losses",
    "Objective",
    "Pass",
    "Peers",
    "loss_names",
    "mlm_terms",
    "pixels_of_cells",
    "recon_terms",
]
