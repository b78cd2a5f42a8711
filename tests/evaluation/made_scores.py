"""Content of `evaluation.json`, as far as scores are read from it."""

from __future__ import annotations

from typing import Any


def made_evaluation(mlm: float = 3.0, recon: float = 0.1, picture: float = 0.7, **changes: Any) -> dict[str, Any]:
    """Losses at two hidden ratios whose means are given, over a unigram entropy of 6 and a pixel variance of 0.2."""
    at = [
        {"hidden_ratio": ratio, "mlm_paired": mlm + sign, "recon_of_hidden": recon + sign / 100, "mlm_limit": 1.5}
        for ratio, sign in ((0.2, -1.0), (0.8, 1.0))
    ]
    baselines = {"majority": 0.1, "raw_pixels": 0.69, "pca": 0.6, "untrained": 0.5, "text_only": 0.9}
    return {
        "probe": {"at": at, "unigram_entropy": 6.0, "pixel_variance": 0.2},
        "linear_probe": {"picture_only": picture, "with_title": 0.8, "baselines": baselines},
    } | changes


def made_task(accuracy: float = 0.6, baseline: float = 0.55) -> dict[str, Any]:
    """A task's result with a row of the model and one of a baseline."""
    estimate = {"mean": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.1}
    rows = [
        {"features": "this encoder", "accuracy": estimate, "median rank": 4.5, "records": 100},
        {"features": "raw pixels", "accuracy": baseline, "median rank": None, "records": 100},
    ]
    return {"tables": [{"title": "Told", "caption": "", "rows": rows}], "verdict": ["told"]}
