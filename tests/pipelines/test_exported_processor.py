"""What the exported processor makes of raw records is, to the bit, what a prepared set holds of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoProcessor

from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.records import COLUMNS, decode_records
from mlim_ray.model import MlimConfig, MlimModel
from mlim_ray.pipelines.prepare import prepare
from mlim_ray.training.export import export_model
from tests.data.pictures import encoded, noise
from tests.pipelines.test_prepare import configured

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

TEXTS = ("Red  striped\tbowl", "Caf\u00e9 cup", "a blue bowl with a lid, two handles and a spoon", "mug\u0007 [MASK]")


def write_rows(path: Path, num_rows: int) -> Path:
    """Records of several formats, shapes and texts; many are cut."""
    kinds = (("JPEG", (90, 60)), ("PNG", (20, 200)), ("WEBP", (64, 64)), ("JPEG", (700, 500)))
    rows = [
        {
            "id": f"k{i}",
            "image": encoded(noise(*kinds[i % 4][1], i), kinds[i % 4][0]),
            "text": f"{TEXTS[i % 3 if i % 5 else 3]} {i}",
        }
        for i in range(num_rows)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def assert_same(source: pa.Table, out: Path, num_records: int) -> None:
    prepared = PreparedSet.open(str(out / "set"))
    texts = prepared.manifest.text
    shape = MlimConfig.for_size(
        "tiny", vocab_size=texts.vocab_size, mask_token_id=4, pad_token_id=0, max_tokens=texts.max_tokens
    )
    export_model(MlimModel(shape), prepared, str(out / "model"))
    processor = AutoProcessor.from_pretrained(out / "model")
    raw = {row["id"]: row for row in source.select(["id", "image", "text"]).to_pylist()}
    checked = 0
    for split in ("train", "val", "test"):
        table = prepared.read(split, (*COLUMNS, "key"), num_records)
        records = decode_records(table, prepared.manifest)
        given = [raw[key] for key in table["key"].to_pylist()]
        if not given:
            continue
        inputs = processor([row["image"] for row in given], [row["text"] for row in given], padding="max_length")
        stored = records.pixels_RHW3.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(inputs["pixel_values"].numpy(), stored)
        np.testing.assert_array_equal(inputs["input_ids"].numpy(), records.token_ids_RT)
        np.testing.assert_array_equal(inputs["attention_mask"].sum(1).numpy(), records.num_tokens_R)
        checked += len(given)
    assert checked > 0


@pytest.mark.parametrize(
    "knobs",
    [{}, {"image_encoding": "jpeg", "fit": "crop"}, {"image_encoding": "webp", "fit": "letterbox", "max_tokens": 8}],
    ids=["raw", "jpeg", "webp"],
)
def test_raw_records_become_what_training_saw(tmp_path: Path, knobs: dict[str, Any]) -> None:
    source = write_rows(tmp_path / "source.parquet", 80)
    prepare(str(source), str(tmp_path / "set"), configured(32, background_colour=(7, 90, 200), **knobs))
    assert_same(pq.read_table(source), tmp_path, 80)


def test_real_products_become_what_training_saw(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "fashion" / "fashion-00000-of-00003.parquet"
    prepare(str(source), str(tmp_path / "set"), configured(32, vocabulary_size=3_000))
    assert_same(pq.read_table(source), tmp_path, 2_000)
