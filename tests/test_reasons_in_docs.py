"""The page about cleaning names exactly the reasons that there are."""

import re
from pathlib import Path

from mlim_ray.data.rejection import Reason, Stage

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cleaning.md"
ROW = re.compile(r"^\| `([a-z0-9_]+)` \| ([a-z, ]+) \| (.+) \| (.+) \|$", re.MULTILINE)


def test_the_table_of_reasons_is_complete() -> None:
    rows = ROW.findall(PAGE.read_text())
    assert sorted(reason for reason, *_ in rows) == sorted(reason.value for reason in Reason)
    for reason, stages, meaning, mend in rows:
        assert set(stages.split(", ")) <= {stage.value for stage in Stage}, reason
        assert len(meaning) > 10 and len(mend) > 10, reason
    assert {stage for _, stages, *_ in rows for stage in stages.split(", ")} == {stage.value for stage in Stage}
