"""Processors and GPUs of AWS's machines, by family and size: the sizes follow a rule, the GPUs stand in a table."""

import re
from dataclasses import dataclass

_CPUS_OF_XLARGE = 4
_ONE_GPU_BUT = {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8}
_GPUS: dict[str, dict[str, int]] = {
    "g4dn": {"12xlarge": 4, "metal": 8},
    "g5": _ONE_GPU_BUT,
    "g6": _ONE_GPU_BUT,
    "g6e": _ONE_GPU_BUT,
    "p3": {"2xlarge": 1, "8xlarge": 4, "16xlarge": 8},
    "p3dn": {"24xlarge": 8},
    "p4d": {"24xlarge": 8},
    "p4de": {"24xlarge": 8},
    "p5": {"4xlarge": 1, "48xlarge": 8},
    "p5en": {"48xlarge": 8},
}
_CPU_FAMILIES = re.compile(r"[cmr](5|6|7|8)[a-z]{0,3}|t3a?")
_OTHER_CPUS = {"medium": 2, "large": 2, "g4dn.metal": 96}


@dataclass(frozen=True)
class Machine:
    """What a machine of some type has."""

    num_cpus: int
    num_gpus: int
    quota: str
    """what AWS counts it under: standard, g or p"""


def machine_of(instance_type: str) -> Machine | None:
    """What a machine of this type has; None for a family that is not known here."""
    family, _, size = instance_type.partition(".")
    num_cpus = _OTHER_CPUS.get(instance_type) or _OTHER_CPUS.get(size) or _by_rule(size)
    if num_cpus is None:
        return None
    if family in _GPUS:
        return Machine(num_cpus, _GPUS[family].get(size, 1), family[0])
    return Machine(num_cpus, 0, "standard") if _CPU_FAMILIES.fullmatch(family) else None


def _by_rule(size: str) -> int | None:
    match = re.fullmatch(r"(\d*)xlarge", size)
    return _CPUS_OF_XLARGE * int(match[1] or 1) if match else None
