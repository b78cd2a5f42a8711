"""Machines by the rule and the table, against what AWS itself says of some (EC2's reference)."""

from __future__ import annotations

import pytest

from mlim_ray.pipelines.doctor.instance_types import Machine, machine_of

KNOWN = {
    "t3.medium": (2, 0),
    "m6i.large": (2, 0),
    "m6i.xlarge": (4, 0),
    "m7i.24xlarge": (96, 0),
    "c6gd.16xlarge": (64, 0),
    "r5.4xlarge": (16, 0),
    "g4dn.xlarge": (4, 1),
    "g4dn.12xlarge": (48, 4),
    "g4dn.metal": (96, 8),
    "g5.4xlarge": (16, 1),
    "g5.16xlarge": (64, 1),
    "g5.24xlarge": (96, 4),
    "g5.48xlarge": (192, 8),
    "g6e.12xlarge": (48, 4),
    "p3.8xlarge": (32, 4),
    "p4d.24xlarge": (96, 8),
    "p5.48xlarge": (192, 8),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_machine_has_what_it_has(name: str) -> None:
    machine = machine_of(name)
    assert isinstance(machine, Machine) and (machine.num_cpus, machine.num_gpus) == KNOWN[name]
    assert machine.quota == ("standard" if not machine.num_gpus else name[0])


@pytest.mark.parametrize("name", ["z9.large", "m6i", "m6i.huge", "", "None"])
def test_an_unknown_machine_is_none(name: str) -> None:
    assert machine_of(name) is None
