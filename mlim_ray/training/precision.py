"""The precision that the forward pass computes in."""

import torch


def autocast(device_type: str, precision: str) -> torch.autocast:
    """Context of a forward pass in `precision`: torch's autocast for bfloat16, nothing for float32."""
    return torch.autocast(device_type, torch.bfloat16, enabled=precision == "bfloat16")
