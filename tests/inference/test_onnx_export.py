"""What onnxruntime makes of an exported encoder is what torch makes of the model, whatever the batch."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from mlim_ray.command_line.main import main
from mlim_ray.inference.onnx_export import TOLERANCE, export_onnx, measure_parity
from mlim_ray.model import MlimModel
from mlim_ray.model.pretrained import MlimPreTrainedModel
from mlim_ray.training.init_from import weights_sha256
from tests.builders import IMAGE_SIZE, MASK, MAX_TOKENS, NUM_CELLS, VOCAB_SIZE, make_model
from tests.exported_runs import write_exported_run

pytestmark = pytest.mark.slow

SHAPES = {
    "as published": {},
    "norm after, experts, hidden cells removed": {
        **{"pre_norm": False, "num_mixture_layers": 1, "num_experts": 3, "num_experts_used": 2},
        "num_joint_layers": 1,
    },
    "deep, hidden cells blanked": {
        **{"embedder_kind": "deep_cnn", "embedder_channels": (16, 32), "embedder_blocks": 1},
        "embedder_blanks_hidden": True,
    },
}


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES.keys())
def exported(request: pytest.FixtureRequest) -> tuple[MlimModel, Any, bytes]:
    model = make_model(**request.param).eval()
    content = export_onnx(model)
    return model, onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]), content


def batch(num_records: int, num_tokens: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(num_records * 100 + num_tokens)
    ids = rng.integers(0, VOCAB_SIZE, (num_records, num_tokens))
    ids[:, 1::4] = MASK
    lengths = rng.integers(2, num_tokens + 1, (num_records, 1))
    return {
        "pixel_values": rng.random((num_records, 3, IMAGE_SIZE, IMAGE_SIZE), np.float32),
        "input_ids": ids,
        "attention_mask": (np.arange(num_tokens) < lengths).astype(np.int64),
        "bool_masked_pos": rng.random((num_records, NUM_CELLS)) < 0.3,
    }


@pytest.mark.parametrize("num_records", [1, 2, 7])
@pytest.mark.parametrize("num_tokens", [2, 3, 8, MAX_TOKENS])
def test_it_agrees_with_torch(exported: tuple[MlimModel, Any, bytes], num_records: int, num_tokens: int) -> None:
    model, session, _ = exported
    given = batch(num_records, num_tokens)
    with torch.inference_mode():
        expected = MlimPreTrainedModel.of(model).eval()(**{n: torch.from_numpy(array) for n, array in given.items()})
    states, pooled = session.run(["last_hidden_state", "pooler_output"], given)
    np.testing.assert_allclose(states, expected.last_hidden_state.numpy(), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(pooled, expected.pooler_output.numpy(), rtol=0, atol=TOLERANCE)


def test_padding_moves_no_output(exported: tuple[MlimModel, Any, bytes]) -> None:
    _, session, _ = exported
    given = batch(3, 4)
    junk = {
        "input_ids": np.concatenate([given["input_ids"], np.full((3, 5), MASK)], 1),
        "attention_mask": np.concatenate([given["attention_mask"], np.zeros((3, 5), np.int64)], 1),
    }
    (states, pooled), (longer, same) = session.run(None, given), session.run(None, {**given, **junk})
    np.testing.assert_allclose(longer[:, : NUM_CELLS + 4], states, atol=1e-5)
    np.testing.assert_allclose(same, pooled, atol=1e-5)
    assert not longer[:, NUM_CELLS + 4 :].any()


def test_the_file_says_which_weights_it_has(exported: tuple[MlimModel, Any, bytes]) -> None:
    model, session, content = exported
    said = session.get_modelmeta().custom_metadata_map
    assert said["weights_sha256"] == weights_sha256(model.state_dict())
    assert said["mask_token_id"] == str(MASK) and said["max_tokens"] == str(MAX_TOKENS)
    parity = measure_parity(model, content)
    assert 0 < parity.largest_difference < TOLERANCE and parity.runtime == onnxruntime.__version__


def test_weights_of_another_model_are_found_out(exported: tuple[MlimModel, Any, bytes]) -> None:
    model, _, content = exported
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.token_positions[1, 0] += 0.1
    assert measure_parity(other, content).largest_difference > TOLERANCE


def test_the_command_writes_what_it_has_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_run = write_exported_run(tmp_path / "run")
    out = tmp_path / "encoder.onnx"
    main(["export-onnx", str(a_run), str(out), "--json"])
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["num_bytes"] == out.stat().st_size and summary["largest_difference"] < TOLERANCE
    for flags, line in (
        ([str(out)], "a file lies there"),
        ([str(tmp_path / "encoder.bin")], "ends in .onnx"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["export-onnx", str(a_run), *flags])
        assert ended.value.code == 2 and line in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["export-onnx", str(tmp_path), str(out), "--overwrite"])
    assert "holds no model" in capsys.readouterr().err
