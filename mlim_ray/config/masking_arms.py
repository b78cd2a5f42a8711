"""Masking settings by short names, so that a comparison can be written in one line: `mam,independent-50`."""

import re

from mlim_ray.config.masking import AlternatingConfig, IndependentConfig, MamConfig, MaskingConfig

OWN = "own"
"""name of the setting that `--masking.*` or `--config` give"""
FORMS = f"mam, alternating, one of them or independent with a per cent, such as mam-60 or independent-50, or {OWN}"
_NAME = re.compile(r"(mam|alternating|independent)(?:-([0-9]{1,3}))?")


def masking_arm(name: str, own: MaskingConfig) -> MaskingConfig:
    """The setting that a name stands for.

    A per cent is the ratio of both heavy modes of `mam` and `alternating` (80 in the paper), and of both sides of
    `independent`. All else is the policy's default.

    Args:
        name: of the setting.
        own: what `own` stands for.

    Raises:
        ValueError: the name stands for nothing.
    """
    if name == OWN:
        return own
    match = _NAME.fullmatch(name)
    ratio = int(match[2]) / 100 if match and match[2] else None
    if not match or (ratio is not None and not 0.0 < ratio <= 1.0) or (match[1] == "independent" and ratio is None):
        raise ValueError(f"given {name}, expected {FORMS}")
    if match[1] == "independent":
        assert ratio is not None
        return IndependentConfig(image_ratio=ratio, text_ratio=ratio)
    policy = MamConfig if match[1] == "mam" else AlternatingConfig
    return policy() if ratio is None else policy(image_heavy_ratio=ratio, text_heavy_ratio=ratio)
