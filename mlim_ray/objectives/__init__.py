"""One file per loss; each returns sums and counts per record."""

from mlim_ray.objectives.mlm import mlm_terms
from mlim_ray.objectives.recon import pixels_of_cells, recon_terms
from mlim_ray.objectives.terms import LossTerms

__all__ = ["LossTerms", "mlm_terms", "pixels_of_cells", "recon_terms"]
