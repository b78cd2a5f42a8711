"""Pages of a run and of a search, made of figures that a test chooses, and a reader of them."""

from __future__ import annotations

import copy
import io
import json
from html.parser import HTMLParser
from typing import Any

import numpy as np
from PIL import Image

from mlim_ray.evaluation.pictures import Guess, ReconstructionRow, TitlePiece
from mlim_ray.reporting.figures import Command
from mlim_ray.reporting.run_page import render_run_page
from mlim_ray.reporting.search_figures import Search
from mlim_ray.reporting.search_page import render_search_page

HOSTILE = '</script><script>alert("1")</script><img src=x onerror=alert(1)> {{ 7 * 7 }} "\'&'
LINEAR = {
    "num_train": 4_000,
    "num_held_out": 1_024,
    "num_labels": 78,
    "picture_only": 0.635,
    "with_title": 0.823,
    "baselines": {
        "majority": 0.181,
        "raw_pixels": 0.692,
        "pca": 0.638,
        "untrained": 0.551,
        "untrained_with_title": 0.602,
        "text_only": 0.871,
    },
}
ENVIRONMENT = {"versions": {"torch": "2.13.0"}, "python": "3.12.1", "gpu": None, "data": "generated:10000"}
BEST_YAML = "method:\n  masking:\n    kind: mam\n"


class Page(HTMLParser):
    """The elements, their text, and the texts of scripts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self._texts: list[str] = []
        self._inside: str | None = None
        self.feed(html)
        self.text = " ".join(" ".join(self._texts).replace("\u00a0", " ").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside == "style":
            self.styles.append(data)
        else:
            self._texts.append(data)

    def attributes(self, name: str) -> list[str]:
        return [value for _, attrs in self.elements if (value := attrs.get(name)) is not None]

    def charts(self) -> dict[str, Any]:
        return json.loads(next(script for script in self.scripts if script.startswith("{")))


def probe(factor: float = 1.0, *, limits: bool = True) -> dict[str, Any]:
    at = [
        {
            "hidden_ratio": ratio,
            "mlm_paired": factor * (2.111 + ratio),
            "mlm_shuffled": factor * (4.222 + ratio),
            "mlm_blank": factor * (3.333 + ratio),
            "recon_paired": factor * (0.0511 + ratio / 100),
            "recon_shuffled": factor * (0.1522 + ratio / 100),
            "recon_blank": factor * (0.0933 + ratio / 100),
            "mlm_limit": 1.444 + ratio if limits else None,
            "recon_limit": 0.0055 if limits else None,
        }
        for ratio in (0.2, 0.5, 0.8, 1.0)
    ]
    return {
        "num_records": 1_024,
        "split": "val",
        "score": 0.4567 * factor,
        "unigram_entropy": 5.678,
        "pixel_variance": 0.2345,
        "at": at,
        "recon_title_limit": [0.0411, 0.0012] if limits else None,
    }


def evaluation(factor: float = 1.0, **changes: Any) -> dict[str, Any]:
    return {
        "steps": 2_000,
        "samples": 128_000,
        "seconds": 197.0,
        "records_per_s": 650.0,
        "num_parameters": 1_071_234,
        "size": "tiny",
        "probe": probe(factor),
        "linear_probe": copy.deepcopy(LINEAR),
    } | changes


def metric_lines(num_lines: int = 40) -> list[dict[str, Any]]:
    return [
        {
            "step": 50 * i,
            "samples": 3_200 * i,
            "epoch": 0.32 * i,
            "loss/total": 6.0 / i,
            "loss/mlm": 5.0 / i,
            "loss/recon": 0.1 / i,
            "loss/mlm/text_heavy": 5.5 / i,
            "loss/recon/image_heavy": 0.2 / i,
            "loss/recon/text_heavy": 0.05 / i,
            "learning_rate": 1e-3 / i,
            "gradient_norm": 1.5,
            "time/data_wait_ratio": 0.25,
            "time/elapsed_s": 5.0 * i,
            **({} if i == 1 else {"time/samples_per_s": 640.0}),
        }
        for i in range(1, num_lines + 1)
    ]


def png(level: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(out, "png")
    return out.getvalue()


def picture_rows(title: str = "red striped bowl", level: int = 0) -> list[ReconstructionRow]:
    guesses = (Guess("striped", 0.61), Guess("dotted", 0.22), Guess("##plain", 0.05))
    pieces = (
        TitlePiece("red", 0),
        TitlePiece("striped", 1, guesses, 0.61),
        TitlePiece("bowl", 2, guesses, 0.01),
    )
    return [ReconstructionRow(7, title, png(1), png(2), png(3 + level), png(4 + level), 16, 13, 0.0789, 0.0123, pieces)]


def run_page(**changes: Any) -> str:
    content: dict[str, Any] = {
        "title": "pretrain-003",
        "run": "runs/pretrain-003",
        "config": {"train": {"num_steps": 2_000}, "masking": {"kind": "mam"}},
        "environment": ENVIRONMENT,
        "metrics": metric_lines(),
        "evaluation": evaluation(),
        "pictures": picture_rows(),
    }
    return render_run_page(**(content | changes))


def params(policy: str = "mam", **changes: Any) -> dict[str, Any]:
    """As a trial of that policy has them; other policies' knobs are not there."""
    own = {
        "mam": {
            "mam.light_probability": 0.333,
            "mam.image_heavy_share": 0.5,
            "mam.image_heavy_ratio": 0.8,
            "mam.text_heavy_ratio": 0.8,
            "mam.image_light_ratio": 0.15,
            "mam.text_light_ratio": 0.15,
        },
        "independent": {"independent.image_ratio": 0.8, "independent.text_ratio": 0.8},
        "alternating": {
            "alternating.image_heavy_probability": 0.5,
            "alternating.image_heavy_ratio": 0.8,
            "alternating.text_heavy_ratio": 0.8,
        },
    }[policy]
    return {
        "policy": policy,
        **own,
        "recon.weight": 10.0,
        "recon.target": "whole",
        "train.learning_rate": 1e-3,
    } | changes


def trial(number: int, role: str = "searched", **changes: Any) -> dict[str, Any]:
    score = 0.7 + number / 100
    return {
        "trial": number,
        "role": role,
        "state": "COMPLETE",
        "samples": 24_000,
        "score": score,
        "curve": [(8_000, score + 0.1), (24_000, score)],
        "params": params(**{"mam.text_heavy_ratio": 0.5 + number / 50, "recon.weight": 10.0 * (number + 1)}),
        "evaluation": evaluation(1 + number / 10),
    } | changes


def with_accuracy(picture_only: float, with_title: float = 0.8) -> dict[str, Any]:
    return evaluation(linear_probe=LINEAR | {"picture_only": picture_only, "with_title": with_title})


def trials() -> list[dict[str, Any]]:
    return [
        trial(0, "paper", score=0.7612),
        trial(1, "light_only", score=0.8021),
        trial(2, score=0.7406),
        trial(3, state="PRUNED", samples=8_000, score=0.9013, curve=[(8_000, 0.9013)], evaluation=None),
        trial(
            4, state="FAIL", samples=0, score=None, curve=[], evaluation=None, reason="out of memory: 9.1 GB of 8 GB"
        ),
    ]


def arm(number: int, role: str, *scores: float, **changes: Any) -> dict[str, Any]:
    mean = sum(scores) / len(scores)
    return {
        "trial": number,
        "role": role,
        "scores": list(scores),
        "mean": mean,
        "interval": [mean - 0.01, mean + 0.01],
        "linear_picture": [0.60, 0.61, 0.62],
        "linear_with_title": [0.80, 0.81, 0.82],
        "params": params(),
    } | changes


def confirmation(**changes: Any) -> dict[str, Any]:
    """Trial 2 beats both references."""
    return {
        "seeds": [101, 102, 103],
        "arms": [
            arm(0, "paper", 0.760, 0.765, 0.770, linear_picture=[0.58, 0.60, 0.60]),
            arm(1, "light_only", 0.801, 0.805, 0.809, linear_picture=None),
            arm(2, "searched", 0.741, 0.742, 0.745),
        ],
        "differences": [
            {"trial": 2, "against": 0, "mean": -0.0223, "interval": [-0.0305, -0.0141], "is_found": True},
            {"trial": 1, "against": 2, "mean": 0.0623, "interval": [0.0553, 0.0693], "is_found": True},
            {"trial": 1, "against": 0, "mean": 0.04, "interval": [0.03, 0.05], "is_found": True},
        ],
        "seed_noise": 0.005,
        "winner": 2,
    } | changes


def undecided() -> dict[str, Any]:
    """No interval of trial 2's differences leaves zero out."""
    found = confirmation(winner=None)
    for one in found["differences"]:
        one |= {"interval": [one["mean"] - 0.08, one["mean"] + 0.08], "is_found": False}
    return found


IMPORTANCE = {
    "evaluator": "PED-ANOVA",
    "measured_on": "score at 1,777 samples, 24 trials",
    "values": {"policy": 0.12, "mam.text_heavy_ratio": 0.41, "recon.weight": 0.26, "train.learning_rate": 0.0},
    "interactions": [["recon.weight", "train.learning_rate", 0.17]],
}


def many_trials(num_trials: int, seed: int = 0) -> list[dict[str, Any]]:
    """A search as it would be: references, three policies, two thirds stopped early, one failure in twenty."""
    random = np.random.default_rng(seed)
    roles = {
        0: ("paper", "mam"),
        1: ("light_only", "mam"),
        2: ("both_heavy", "independent"),
        3: ("alternating", "alternating"),
    }
    found = []
    for number in range(num_trials):
        role, policy = roles.get(number, ("searched", str(random.choice(["mam", "mam", "independent", "alternating"]))))
        chosen = params(policy)
        if role == "searched":
            chosen = {
                name: round(float(random.uniform(0.05, 1)), 4)
                if name.endswith(("ratio", "share", "probability"))
                else value
                for name, value in chosen.items()
            }
            chosen |= {
                "recon.weight": float(10 ** random.uniform(0, 2)),
                "recon.target": str(random.choice(["whole", "masked"])),
                "train.learning_rate": float(1e-3 * 3 ** random.uniform(-1, 1)),
            }
        final = 0.36 + 0.15 * float(random.random()) + {"mam": 0.0, "independent": 0.08, "alternating": 0.03}[policy]
        curve = [(samples, final + gap) for samples, gap in ((1_777, 0.45), (5_333, 0.17), (16_000, 0.0))]
        is_kept = role != "searched" or random.random() < 0.35
        is_failed = role == "searched" and random.random() < 0.05
        curve = curve[: 0 if is_failed else 3 if is_kept else int(random.integers(1, 3))]
        picture, title = float(random.uniform(0.5, 0.66)), float(random.uniform(0.7, 0.83))
        found.append(
            trial(
                number,
                role,
                state="FAIL" if is_failed else "COMPLETE" if is_kept else "PRUNED",
                samples=curve[-1][0] if curve else 0,
                score=curve[-1][1] if curve else None,
                curve=curve,
                params=chosen,
                reason="loss became NaN at step 812" if is_failed else None,
                measures={} if is_failed else {"probe": final, "mlm": final * 1.1, "recon": final * 0.9},
                evaluation=with_accuracy(picture, title) if is_kept and not is_failed else None,
            )
        )
    return found


COMMANDS = [
    Command("Do the search again:", "python experiments/tune_mam.py --data generated:10000 --trials 24"),
    Command("Train the winner in full:", "python experiments/pretrain.py --config runs/tune_mam-002/best.yaml"),
    Command("Go on with it:", "python experiments/tune_mam.py --out runs/tune_mam-002 --resume"),
]


def search(found: list[dict[str, Any]] | None = None, **changes: Any) -> Search:
    return Search.of(trials() if found is None else found, **({"rungs": [8_000, 24_000]} | changes))


def search_page(of: Search | None = None, **changes: Any) -> str:
    content: dict[str, Any] = {
        "title": "tune_mam-002",
        "folder": "runs/tune_mam-002",
        "config": {"search": {"num_trials": 5}},
        "environment": ENVIRONMENT,
        "search": search(confirmation=confirmation(), importance=IMPORTANCE) if of is None else of,
        "commands": COMMANDS,
        "pictures": {0: picture_rows(level=10), 2: picture_rows()},
        "best_yaml": BEST_YAML,
    }
    return render_search_page(**(content | changes))
