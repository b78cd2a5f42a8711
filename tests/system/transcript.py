"""What was typed and what it printed, as a page can show it."""

from __future__ import annotations

import re
from pathlib import Path

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Transcript:
    """Kept in `path` from its first line on; docs/onprem_transcript.md is made of one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text("")

    def typed(self, command: str, said: str) -> None:
        """A command, and what it said on both outputs."""
        self._add(f"$ {command}\n{_COLOURS.sub('', said).strip()}\n\n")

    def happened(self, what: str) -> None:
        """What was done to the hosts meanwhile."""
        self._add(f"# {what}\n\n")

    def _add(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)
