"""Shapes of folders that were written before a field existed."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from transformers import AutoModel

from mlim_ray.model import MlimConfig
from mlim_ray.model.pretrained import MlimPreTrainedModel
from tests.builders import make_model

_FIRST = {
    "image_size", "embedder_channels", "decoder_channels", "num_hidden_layers", "num_attention_heads", "pre_norm",
    "vocab_size", "mask_token_id", "pad_token_id", "max_tokens", "dropout_ratio", "initializer_range", "layer_norm_eps",
}  # fmt: skip


def test_a_folder_from_before_there_were_parts_is_read(tmp_path: Path) -> None:
    model = make_model().eval()
    MlimPreTrainedModel.of(model).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    later = {field.name for field in fields(MlimConfig)} - _FIRST
    assert later
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k not in later}))
    assert AutoModel.from_pretrained(tmp_path).config.shape == model.config
