"""The generated catalogue: product cards whose limits are known, so that a model's distance to them is."""

from mlim_ray.data.synthetic.attributes import ATTRIBUTES, Attribute
from mlim_ray.data.synthetic.catalogue import SCHEMA, generate
from mlim_ray.data.synthetic.limits import mlm_limit, recon_limit, recon_title_limit, word_entropies
from mlim_ray.data.synthetic.matching import compare_pictures, compare_titles
from mlim_ray.data.synthetic.titles import TEMPLATES, Title, read_title

__all__ = [
    "ATTRIBUTES",
    "SCHEMA",
    "TEMPLATES",
    "Attribute",
    "Title",
    "compare_pictures",
    "compare_titles",
    "generate",
    "mlm_limit",
    "read_title",
    "recon_limit",
    "recon_title_limit",
    "word_entropies",
]
