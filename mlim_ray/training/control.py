"""What may come between the steps of a run: a wish to stop, and meetings of all workers."""

from typing import Any


class Control:
    """Nothing ever comes; a pipeline passes its own.

    Each worker answers for itself. The loop adds the answers up with the counts of the next batch, so that all workers
    act at the same step.
    """

    def wants_stop(self) -> bool:
        """Whether this worker wishes that the run save a checkpoint and end, to be resumed another time."""
        return False

    def wants_meeting(self) -> bool:
        """Whether this worker wishes that `meet` be called on all of them."""
        return False

    def meet(self, line: dict[str, Any] | None) -> bool:
        """Called after the same step on every worker, with its last line of metrics; all have the same losses.

        Gives whether a checkpoint is to be saved now; the answer must be the same on all workers.
        """
        return False
