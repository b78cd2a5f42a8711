"""What a run leaves for people beside its page: pictures as PNG files, and the card of its model."""

import os
from typing import Any

from mlim_ray.config import PretrainConfig
from mlim_ray.data import storage
from mlim_ray.data.manifest import SPLITS
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.evaluation.picture_sheets import picture_sheets
from mlim_ray.pipelines.measure import Measured
from mlim_ray.reporting.model_card import render_model_card
from mlim_ray.training.run_folder import RunFolder

PICTURES = "pictures"
_CARD = "README.md"


def write_pictures(folder: RunFolder, measured: Measured) -> None:
    """`pictures/` of a run or a search: a sheet for each record that the page shows, and all of them as one."""
    for name, png in picture_sheets(measured.pictures, measured.cross_modal).items():
        storage.write_bytes_atomically(folder.file(PICTURES, name), png)


def write_model_card(
    folder: RunFolder, config: PretrainConfig, prepared: PreparedSet, evaluation: dict[str, Any]
) -> None:
    """`model/README.md`; written anew when more was measured."""
    manifest = prepared.manifest
    card = render_model_card(
        title=os.path.basename(folder.path),
        source=", ".join(dict.fromkeys(generation.source for generation in manifest.generations)),
        records={split: manifest.splits[split].num_records for split in SPLITS},
        config=config.model_dump(mode="json"),
        environment=folder.read_json("environment.json"),
        evaluation=evaluation,
    )
    storage.write_bytes_atomically(folder.file("model", _CARD), card.encode())
