"""A part of a sample in words."""


def share(count: int, total: int) -> str:
    """A share in per cent: never 0 % for some of it, nor 100 % for less than all."""
    if count == 0 or total == 0:
        return "0 %"
    if count == total:
        return "100 %"
    ratio = 100 * count / total
    if ratio < 0.1:
        return "under 0.1 %"
    if ratio > 99.9:
        return "over 99.9 %"
    return f"{ratio:.0f} %" if 10.0 <= ratio < 99.0 else f"{ratio:.1f} %"
