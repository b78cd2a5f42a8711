"""torch.compile, where it works.

The parts of the model are compiled, not the whole: one compiled layer serves all layers, so the start takes a minute
instead of many, and gradients of a layer can be exchanged while those of the one before are computed.
"""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mlim_ray.model import MlimModel
from mlim_ray.training.precision import autocast

logger = logging.getLogger(__name__)

_REASON_CHARACTERS = 300
_MADE_UP_RECORDS = (5, 6)


def compile_model(model: MlimModel, precision: str) -> str | None:
    """Let the model's parts run as torch.compile makes them; gives why they run as they are, if they do.

    A pass forwards and back with made-up inputs compiles everything before the first step, so that what does not work
    here (no compiler for C++, a GPU that the generated code does not fit) shows now. Shapes are left open: batches of
    any size use the same code.

    Args:
        model: on its device, in training mode or not; its gradients are cleared.
        precision: float32 or bfloat16, that of autocast.
    """
    parts = list(_parts(model))
    was_training = model.training
    try:
        for part in parts:
            part.compile(dynamic=True)
        model.train()
        for num_records in _MADE_UP_RECORDS:
            with autocast(model.device.type, precision):
                logits_MV, picture_B3HW = model(*_made_up_inputs(model, num_records))
            (logits_MV.float().mean() + picture_B3HW.float().mean()).backward()
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
    except Exception as error:  # Whatever a compiler may come up with: the model runs without it.
        for part in parts:
            part._compiled_call_impl = None
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:_REASON_CHARACTERS]
        logger.warning("train.compile: the model runs as it is, for torch.compile failed here: %s", reason)
        return reason
    finally:
        model.train(was_training)
        model.zero_grad(set_to_none=True)
    return None


def _parts(model: MlimModel) -> Iterator[nn.Module]:
    yield model.image_embedder
    yield from model.encoder.layers
    yield model.mlm_head
    yield model.image_decoder


def _made_up_inputs(model: MlimModel, num_records: int) -> tuple[Tensor, ...]:
    """Records of different lengths, some visible and some hidden on either side: code for one or none is special."""
    shape, device = model.config, model.device
    size = shape.image_size
    token = torch.arange(shape.max_tokens, device=device)
    lengths_B1 = shape.max_tokens - torch.arange(num_records, device=device)[:, None] % 2
    present_BT = token < lengths_B1
    return (
        torch.full((num_records, 3, size, size), 0.5, device=device),
        torch.zeros(num_records, shape.max_tokens, dtype=torch.long, device=device),
        present_BT,
        (torch.arange(shape.num_cells, device=device) % 3 == 0).repeat(num_records, 1),
        (token % 3 == 0) & present_BT,
    )
