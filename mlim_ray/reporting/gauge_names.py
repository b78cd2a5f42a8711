"""The gauges of a search, as Prometheus and Grafana know them: one list for what is exported and what is drawn."""

from dataclasses import dataclass
from typing import Literal

EXPORTED_PREFIX = "ray_"
"""Ray puts it before the name of every metric that it exports."""
TRIAL, MODE = "trial", "mode"
"""The tags: a trial's number, and the masking mode that a loss is of."""
ALL_MODES = "all"
"""mode of a loss over all records"""

Unit = Literal["short", "percentunit"]
"""Grafana's names: a plain number, and a share in [0, 1]."""


@dataclass(frozen=True)
class GaugeName:
    """One gauge."""

    name: str
    description: str
    tags: tuple[str, ...] = (TRIAL,)
    unit: Unit = "short"

    @property
    def exported(self) -> str:
        """Its name in Prometheus."""
        return EXPORTED_PREFIX + self.name


MLM_LOSS = GaugeName("mlim_trial_mlm_loss", "MLM loss of a trial's newest logged steps", (TRIAL, MODE))
RECON_LOSS = GaugeName("mlim_trial_recon_loss", "RECON loss of a trial's newest logged steps", (TRIAL, MODE))
SCORE = GaugeName("mlim_trial_score", "score of a trial at its newest rung, lower is better")
SAMPLES = GaugeName("mlim_trial_samples", "records that a trial has been trained on")
SAMPLES_PER_S = GaugeName("mlim_trial_samples_per_s", "records a second of a trial's newest logged steps")
DATA_WAIT = GaugeName(
    "mlim_trial_data_wait_ratio", "share of a trial's time spent waiting for data", unit="percentunit"
)
LEFT_OUT = GaugeName("mlim_trial_left_out_records", "damaged records that a trial's batches have lacked")
REJECTED = GaugeName("mlim_set_rejected_records", "records that were rejected when the set was prepared", ())

OF_A_TRIAL = (SCORE, MLM_LOSS, RECON_LOSS, SAMPLES_PER_S, DATA_WAIT, SAMPLES, LEFT_OUT)
"""They are there while their trial runs."""
GAUGES = (*OF_A_TRIAL, REJECTED)
