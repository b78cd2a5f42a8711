"""Bytes and seconds as a person says them."""

_DECIMAL_STEP = 1_000
_UNITS = ("bytes", "KB", "MB", "GB", "TB")


def data_size(num_bytes: float) -> str:
    """Bytes in the unit that a person would choose, with two or three figures; 1 KB is 1,000 bytes."""
    value, unit = float(num_bytes), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / _DECIMAL_STEP, unit + 1
    digits = 0 if unit == 0 or value >= 99.5 else 1
    return f"{value:,.{digits}f} {_UNITS[unit]}"


def rough_time(seconds: float) -> str:
    """An estimated time, without more figures than an estimate has."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{seconds / 3600:.1f} h"
