"""A folder with a model of a few thousand weights and its tokenizer, as a run leaves one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch

from mlim_ray.data.tokenizer import count_words, train_tokenizer
from tests.builders import make_model


def write_model(folder: Path, texts: Sequence[str], seed: int = 0) -> Path:
    """A model for pictures of 16 pixels, with a vocabulary of the words of `texts`."""
    tokenizer = train_tokenizer(count_words(texts), 300)
    shape = {"vocab_size": tokenizer.vocab_size, "mask_token_id": tokenizer.mask_id, "pad_token_id": tokenizer.pad_id}
    model = make_model(seed, **shape)
    (folder / "model").mkdir(parents=True)
    safetensors.torch.save_file(model.state_dict(), folder / "model" / "model.safetensors")
    (folder / "model" / "config.json").write_text(json.dumps(model.config.to_dict()))
    for name, content in tokenizer.files().items():
        (folder / "model" / name).write_bytes(content)
    return folder
