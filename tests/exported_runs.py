"""The folder of a run as far as its users need it: a small model with its tokenizer and processor."""

from __future__ import annotations

from pathlib import Path

from mlim_ray.data.prepared import PreparedSet
from mlim_ray.training.export import export_model
from tests.builders import IMAGE_SIZE, make_model
from tests.prepared_sets import write_unfilled


def write_exported_run(folder: Path) -> Path:
    """`model/` of a few thousand weights, and the prepared set `set/` that its vocabulary is from."""
    prepared = PreparedSet.open(str(write_unfilled(folder / "set", "generated:200", IMAGE_SIZE, vocabulary_size=250)))
    model = make_model(vocab_size=prepared.tokenizer().vocab_size, max_tokens=prepared.manifest.text.max_tokens)
    export_model(model, prepared, str(folder / "model"))
    return folder
