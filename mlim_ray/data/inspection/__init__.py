"""What a source holds, from a sample and without Ray: shown before any time is spent.

One file a question: which records are sampled, how pictures and texts are, what `prepare` would cost, and
what a person should mend first.
"""

from mlim_ray.data.inspection.distribution import Distribution
from mlim_ray.data.inspection.estimate import Estimate
from mlim_ray.data.inspection.examples import Example, Thumbnail
from mlim_ray.data.inspection.facts import Inspection, PictureFacts, Rejection, TextFacts
from mlim_ray.data.inspection.share import share
from mlim_ray.data.inspection.survey import DEFAULT_SAMPLE, inspect

__all__ = [
    "DEFAULT_SAMPLE",
    "Distribution",
    "Estimate",
    "Example",
    "Inspection",
    "PictureFacts",
    "Rejection",
    "TextFacts",
    "Thumbnail",
    "inspect",
    "share",
]
