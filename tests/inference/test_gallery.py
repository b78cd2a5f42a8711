"""Embedded records: what `mlim-ray embed` wrote and what is embedded here are the same vectors, and the nearest are
those that brute force finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.result_set import ResultCounts, ResultFolder, ResultManifest, write_part
from mlim_ray.evaluation.embedding import COLUMN_OF
from mlim_ray.evaluation.showing import SHOWN
from mlim_ray.inference import LoadedModel
from mlim_ray.inference.gallery import Gallery, open_gallery
from mlim_ray.training.init_from import weights_sha256
from tests.data.pictures import encoded, noise

CONFIG = PrepareConfig()


def write_embeddings(folder: Path, gallery: Gallery, sha256: str, *, unit: bool = False) -> Path:
    """As `mlim-ray embed` leaves them, in two parts."""
    width = gallery.embeddings["image"].shape[1]
    columns = {}
    for shown in SHOWN:
        states = gallery.embeddings[shown]
        states = states / np.linalg.norm(states, axis=1, keepdims=True) if unit else states
        columns[COLUMN_OF[shown]] = pa.FixedSizeListArray.from_arrays(pa.array(states.ravel()), width)
    table = pa.table({"key": pa.array(gallery.keys), **columns})
    half = len(table) // 2
    parts = tuple(write_part(str(folder), i, rows) for i, rows in enumerate((table[:half], table[half:])))
    counts = ResultCounts(read=len(table), accepted=len(table), rejected=0, duplicates=0, reasons={})
    manifest = ResultManifest(
        **{"format": "mlim_ray embeddings", "plan": "p", "source": "s", "columns": {}, "counts": counts},
        **{"part_schema": {}, "parts": parts, "quarantine": (), "libraries": {}},
        facts={"weights_sha256": sha256, "normalise": unit},
    )
    ResultFolder(str(folder), "mlim_ray embeddings").close(manifest)
    return folder


@pytest.mark.parametrize("unit", [False, True])
def test_written_embeddings_have_the_same_neighbours(loaded: LoadedModel, tmp_path: Path, unit: bool) -> None:
    here = open_gallery("generated:100", loaded, CONFIG, 40)
    folder = write_embeddings(tmp_path / "out", here, weights_sha256(loaded.model.state_dict()), unit=unit)
    written = open_gallery(str(folder), loaded, CONFIG)
    assert list(written.keys) == list(here.keys) and written.texts is None
    asked = here.embeddings["text"][3]
    found = written.nearest(asked, "text", 5)
    states = here.embeddings["text"].astype(np.float64)
    if unit:
        states /= np.linalg.norm(states, axis=1, keepdims=True)
    offset = states - states.mean(0)
    cosines = offset @ offset[3] / np.linalg.norm(offset, axis=1) / np.linalg.norm(offset[3])
    assert [one.similarity for one in found] == pytest.approx(sorted(cosines, reverse=True)[:5], abs=1e-4)
    assert found[0].similarity == pytest.approx(1.0, abs=1e-4) and found[0].pixels_HW3 is None
    few = open_gallery(str(folder), loaded, CONFIG, 25)
    assert list(few.keys) == list(here.keys[:25])


def test_embeddings_of_other_weights_are_refused(loaded: LoadedModel, tmp_path: Path) -> None:
    here = open_gallery("generated:100", loaded, CONFIG, 10)
    folder = write_embeddings(tmp_path / "out", here, "of another run")
    with pytest.raises(ValueError, match="was embedded with other weights"):
        open_gallery(str(folder), loaded, CONFIG)


def test_a_source_is_sampled_cleaned_and_embedded(loaded: LoadedModel, run: Path, tmp_path: Path) -> None:
    rows = [{"id": f"k{i}", "image": encoded(noise(20, 20, i)), "text": f"red bowl {i}"} for i in range(30)]
    rows[3]["image"], rows[5]["id"] = b"no picture", "k6"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "source.parquet")
    done: list[tuple[int, int]] = []
    gallery = open_gallery(
        str(tmp_path / "source.parquet"), loaded, CONFIG, on_progress=lambda *told: done.append(told)
    )
    assert len(set(gallery.keys)) == len(gallery.keys) == 28
    assert done[-1] == (30, 30)
    assert gallery.texts is not None and gallery.pixels_RHW3 is not None
    again = loaded.embed(images=gallery.pixels_RHW3[4], texts=gallery.texts[4])
    np.testing.assert_allclose(gallery.embeddings["both"][4], again, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="absent does not exist"):
        open_gallery(str(tmp_path / "absent"), loaded, CONFIG)
