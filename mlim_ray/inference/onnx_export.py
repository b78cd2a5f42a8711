"""A model's encoder as one ONNX file, and how far onnxruntime is from torch on it.

Legend: B records, N cells, T token positions, H, W pixels.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlim_ray.model import MlimModel
from mlim_ray.model.named_inputs import named_inputs
from mlim_ray.model.padded import PaddedEncoder, PaddedStates
from mlim_ray.model.pooling import pooled_states
from mlim_ray.training.init_from import weights_sha256

TOLERANCE = 1e-4
"""most that an output may be away from torch's"""
OPSET = 18
_MOST_BYTES = 2_000_000_000
"""what a single file can hold, being one protobuf message"""

Arrays = dict[str, NDArray[Any]]
"""inputs by name: see `PaddedEncoder.forward`"""


@dataclass(frozen=True)
class Parity:
    """How far onnxruntime's outputs are from those of the model itself."""

    num_batches: int
    largest_difference: float
    runtime: str
    """version of onnxruntime"""


def export_onnx(model: MlimModel) -> bytes:
    """The encoder of a model as the content of an ONNX file; batch and text length are dynamic.

    Raises:
        ValueError: the packages are not installed, or the model is larger than one file can hold.
    """
    num_bytes = sum(weight.numel() * 4 for weight in model.parameters())
    if num_bytes > _MOST_BYTES:
        raise ValueError(f"the model has {num_bytes:,} bytes of weights and an ONNX file holds {_MOST_BYTES:,}")
    for name in ("onnx", "onnxscript"):
        _package(name)
    config = model.config
    # Sizes that no other dimension has, and not 0 or 1, which tracing takes for constants.
    example = _batch(model, num_records=3, num_tokens=min(5, config.max_tokens), seed=0)
    records, pieces = torch.export.Dim("records"), torch.export.Dim("pieces", min=2, max=config.max_tokens)
    encoder = PaddedEncoder(model).float().cpu()
    with _quietly():
        program = torch.onnx.export(
            encoder,
            (),
            kwargs={name: torch.from_numpy(array) for name, array in example.items()},
            dynamic_shapes={
                "pixel_values": {0: records},
                "input_ids": {0: records, 1: pieces},
                "attention_mask": {0: records, 1: pieces},
                "bool_masked_pos": {0: records},
            },
            output_names=list(PaddedStates._fields),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(
        {
            "mask_token_id": str(config.mask_token_id),
            "max_tokens": str(config.max_tokens),
            "weights_sha256": weights_sha256(model.state_dict()),
        }
    )
    content: bytes = program.model_proto.SerializeToString()
    return content


def measure_parity(model: MlimModel, content: bytes) -> Parity:
    """Run the file in onnxruntime beside the model on made batches: short and long texts, padding, hidden cells and
    words, whole sides hidden.

    Raises:
        ValueError: onnxruntime is not installed.
    """
    runtime = _package("onnxruntime")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    model = model.float().cpu()
    most = model.config.max_tokens
    shapes = ((1, 2), (1, most), (2, min(7, most)), (5, min(3, most)), (8, most))
    largest = 0.0
    for seed, (num_records, num_tokens) in enumerate(shapes):
        batch = _batch(model, num_records, num_tokens, seed)
        for found, expected in zip(session.run(None, batch), _expected(model, batch), strict=True):
            largest = max(largest, float(np.abs(found - expected).max()))
    return Parity(len(shapes), largest, runtime.__version__)


@torch.inference_mode()
def _expected(model: MlimModel, batch: Arrays) -> Iterator[NDArray[np.float32]]:
    inputs = named_inputs(model, **{name: torch.from_numpy(array) for name, array in batch.items()})
    states = model.encode(*inputs)
    yield torch.cat([states.cells_BND, states.tokens_BTD], 1).numpy()
    yield pooled_states(states.cells_BND, states.tokens_BTD, *inputs[2:]).numpy()


def _batch(model: MlimModel, num_records: int, num_tokens: int, seed: int) -> Arrays:
    """A made batch, in which texts are of any length and a third of all cells and pieces is hidden."""
    rng = np.random.default_rng(seed)
    config = model.config
    size, shape = config.image_size, (num_records, num_tokens)
    token_ids_BT = rng.integers(0, config.vocab_size, shape)
    token_ids_BT[rng.random(shape) < 1 / 3] = config.mask_token_id
    num_present_B1 = rng.integers(2, num_tokens + 1, (num_records, 1))
    cell_hidden_BN = rng.random((num_records, config.num_cells)) < 1 / 3
    cell_hidden_BN[0] = seed % 2 == 0
    return {
        "pixel_values": rng.random((num_records, 3, size, size), np.float32),
        "input_ids": token_ids_BT,
        "attention_mask": (np.arange(num_tokens) < num_present_B1).astype(np.int64),
        "bool_masked_pos": cell_hidden_BN,
    }


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what the exporter warns of: its own future, and packages that it would know too."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(
            f"{name} is not installed, which writes or checks ONNX files; pip install 'mlim-ray[onnx]'"
        ) from error
