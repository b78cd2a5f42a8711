"""A model folder in S3, against a real server."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

import mlim_ray
from mlim_ray.data import storage
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.training.export import export_model
from tests.builders import IMAGE_SIZE, make_model
from tests.data.pictures import noise
from tests.prepared_sets import write_unfilled

pytestmark = pytest.mark.cluster


def test_a_model_in_s3_is_the_one_on_disk_and_takes_pictures_from_there(bucket: str, tmp_path: Path) -> None:
    prepared = PreparedSet.open(str(write_unfilled(tmp_path / "set", "generated:50", IMAGE_SIZE, vocabulary_size=150)))
    model = make_model(vocab_size=prepared.tokenizer().vocab_size, max_tokens=prepared.manifest.text.max_tokens)
    for run in (str(tmp_path), f"{bucket}/run"):
        export_model(model, prepared, storage.join(run, "model"))
    with io.BytesIO() as out:
        noise(40, 30).save(out, "JPEG")
        (tmp_path / "a.jpg").write_bytes(out.getvalue())
        storage.write_bytes_atomically(f"{bucket}/a.jpg", out.getvalue())
    here, there = mlim_ray.load(tmp_path), mlim_ray.load(f"{bucket}/run")
    np.testing.assert_array_equal(
        there.embed(images=f"{bucket}/a.jpg", texts="red bowl"), here.embed(images=tmp_path / "a.jpg", texts="red bowl")
    )
    with pytest.raises(ValueError, match="absent holds no model"):
        mlim_ray.load(f"{bucket}/absent")
