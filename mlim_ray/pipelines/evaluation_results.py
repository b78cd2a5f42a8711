"""Where the results of evaluations lie: in the run's folder by source, in its `evaluation.json`, and on its page."""

from typing import Any

from mlim_ray.data import storage
from mlim_ray.reporting.evaluations import with_evaluations
from mlim_ray.training.run_folder import RunFolder

FOLDER = "evaluation"
"""below the run folder: what evaluating it leaves"""
RESULTS = f"{FOLDER}/results.json"
"""of every source that a run was evaluated on"""
_EVALUATION, _PAGE = "evaluation.json", "report.html"

Found = dict[str, Any]


def read_evaluations(folder: RunFolder) -> Found:
    """What a run was found to be worth, by source."""
    found: Found = folder.read_json(RESULTS) if storage.exists(folder.file(RESULTS)) else {}
    return found


def store_evaluation(folder: RunFolder, source: str, found: Found, run: str) -> None:
    """Put what was found on one source beside what was found on others.

    A run that is not finished has no `evaluation.json` yet, whose being there says that it is.

    Args:
        folder: of the run.
        source: the records' own name.
        found: as plain values.
        run: the folder as a person names it, for the command on the page.
    """
    evaluations = read_evaluations(folder) | {source: found}
    folder.write_json(RESULTS, evaluations)
    if folder.is_finished:
        folder.write_json(_EVALUATION, folder.read_json(_EVALUATION) | {"evaluations": evaluations})
    page = folder.file(_PAGE)
    if storage.exists(page):
        text = with_evaluations(storage.read_bytes(page).decode(), evaluations, run)
        storage.write_bytes_atomically(page, text.encode())
