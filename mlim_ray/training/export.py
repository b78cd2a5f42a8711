"""The model folder that others load: safetensors, config, tokenizer and processor (contract C7)."""

import tempfile
from pathlib import Path

from mlim_ray.data import storage
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.model import MlimModel


def export_model(model: MlimModel, prepared: PreparedSet, folder: str) -> None:
    """Write weights, config, tokenizer and processor to `folder`.

    `AutoModel.from_pretrained(folder)` and `AutoProcessor.from_pretrained(folder)` read them back.
    """
    # Only here: transformers' modelling code takes seconds to load.
    from mlim_ray.model.pretrained import MlimPreTrainedModel
    from mlim_ray.model.processor import PROCESSOR_FILE, MlimProcessor

    tokenizer = prepared.tokenizer()
    contents = dict(tokenizer.files())
    contents[PROCESSOR_FILE] = MlimProcessor.of(prepared.manifest.config, tokenizer).to_json_string().encode()
    with tempfile.TemporaryDirectory() as temporary:
        MlimPreTrainedModel.of(model).save_pretrained(temporary)
        contents |= {path.name: path.read_bytes() for path in Path(temporary).iterdir()}
    for name, data in contents.items():
        storage.write_bytes_atomically(storage.join(folder, name), data)
