"""The hostile pictures that are rejected, as bytes for a file."""

from __future__ import annotations

from tests.data.hostile import hostile_records


def rejected_pictures() -> dict[str, tuple[bytes | None, str]]:
    """What it is: the bytes, and the reason they are rejected for."""
    return {
        name.removeprefix("picture: "): (hostile.change["image"], hostile.reason.value)
        for name, hostile in hostile_records().items()
        if name.startswith("picture: ")
        and hostile.reason is not None
        and isinstance(hostile.change["image"], bytes | None)
    }
