"""The model, readable like the paper: embedder, encoder, decoder, and `mlim.py` that joins them.

Importing this package registers the model with transformers' Auto classes, so that
`AutoModel.from_pretrained("RUN/model")` loads what a run has written.
"""

from transformers import AutoConfig, AutoModel

from mlim_ray.model.bert import load_bert_weights
from mlim_ray.model.configuration import MlimConfig
from mlim_ray.model.mlim import MlimModel, MlimStates
from mlim_ray.model.sizes import SIZES

AutoConfig.register(MlimConfig.model_type, MlimConfig, exist_ok=True)
AutoModel.register(MlimConfig, MlimModel, exist_ok=True)

__all__ = ["SIZES", "MlimConfig", "MlimModel", "MlimStates", "load_bert_weights"]
