"""The model, readable like the paper: embedder, encoder, decoder, and `mlim.py` that joins them.

`pretrained.py` has it as transformers knows it.
"""

from mlim_ray.model.bert import load_bert_weights
from mlim_ray.model.configuration import MlimConfig
from mlim_ray.model.mlim import MlimModel, MlimStates
from mlim_ray.model.sizes import SIZES

__all__ = ["SIZES", "MlimConfig", "MlimModel", "MlimStates", "load_bert_weights"]
