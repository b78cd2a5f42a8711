"""The hostile records in a process of their own: what they take, and that nothing kills it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_MEMORY_BYTES = 1_500_000_000
MAX_CPU_S = 60
"""for all of them; beyond it the kernel ends the process"""
# The largest pictures that the default rules let in, in the forms that take the most memory or time.
CODE = """
import json, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[1]),) * 2)
import numpy as np
from PIL import Image
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.cleaning import CleaningRules, clean
from mlim_ray.data.sources import resolve_prepare_config
from tests.data.hostile import Hostile, hostile_records
from tests.data.pictures import black_png, encoded, jpeg_of_scans, png_of

rules = CleaningRules.of(resolve_prepare_config(PrepareConfig(max_text_characters=2_000), 32), has_split=True)
large = Image.new("RGBA", (5_000, 5_000), (9, 99, 199, 99))
large_pictures = {
    "alpha": encoded(large, compress_level=1),
    "webp": encoded(large, "WEBP", lossless=True, quality=0, method=0),
    "cmyk": encoded(large.convert("CMYK"), "JPEG"),
    "palette": encoded(large.convert("RGB").convert("P"), "GIF"),
    "scans": jpeg_of_scans(80, 5_000, flat=True),
    "turned": encoded(large.convert("RGB"), "TIFF", compression="tiff_lzw", tiffinfo={274: 6}),
    "wide": png_of(np.zeros((5_000, 5_000, 1), np.uint16), 0, 16),
}
del large

def peak_bytes():
    # Of this program alone: `ru_maxrss` of a started process begins at what its parent had.
    line, = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])

reasons = {}
for name, record in hostile_records().items():
    cleaned = clean([record.record(name)], rules)
    reasons[name] = [r.reason.value for r in cleaned.rejected] + [None for _ in cleaned.accepted]
for name, picture in large_pictures.items():
    cleaned = clean([Hostile({"image": picture}, None).record(name)], rules)
    reasons[name] = [r.reason.value for r in cleaned.rejected] + [None for _ in cleaned.accepted]
print(json.dumps([reasons, peak_bytes()]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_hostile_record_crashes_hangs_or_takes_much_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(MAX_CPU_S)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    reasons, peak_bytes = json.loads(done.stdout)
    assert all(len(found) == 1 for found in reasons.values())
    assert len(reasons) > 200 and all(reasons[name] == [None] for name in ("alpha", "webp", "cmyk", "scans", "wide"))
    assert peak_bytes < MAX_MEMORY_BYTES
