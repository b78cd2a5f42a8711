"""A trained model in its users' hands: words filled in, records embedded, pictures painted."""

from mlim_ray.inference.guess import WordGuess
from mlim_ray.inference.loaded_model import LoadedModel
from mlim_ray.inference.loading import load

__all__ = ["LoadedModel", "WordGuess", "load"]
