"""The card of an exported model: what it learned from, how well, what it is for, and how it is loaded."""

from collections.abc import Mapping
from typing import Any, cast

from mlim_ray.reporting.figures import EvaluationFigures, at_paper_ratio
from mlim_ray.reporting.page import fixed, render_text
from mlim_ray.reporting.probe_tables import linear_reading, partner_reading
from mlim_ray.reporting.run_page import yaml_text

UNKNOWN = "unknown: fill in"
_SECTIONS = ("model", "masking", "mlm", "recon", "train", "prepare")
_PATHS = ("image_folder", "tokenizer", "bert_checkpoint", "init_from")


def render_model_card(
    *,
    title: str,
    source: str,
    records: Mapping[str, int],
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    evaluation: Mapping[str, Any],
) -> str:
    """`README.md` of a model folder, in Markdown with the head that model hubs read.

    Args:
        title: name of the run.
        source: name of what it learned from, without the folders above, which tell of a machine.
        records: how many the prepared set has, by split.
        config: the resolved config; `model.licence` is what the card says of the licence.
        environment: content of `environment.json`.
        evaluation: content of `evaluation.json`; only the two probes and the counts are read, where they are there.
    """
    figures = cast(EvaluationFigures, evaluation)
    probe, linear = figures.get("probe"), figures.get("linear_probe")
    return render_text(
        "model_card.md.j2",
        title=title,
        licence=" ".join((config["model"].get("licence") or "").split()),
        unknown=UNKNOWN,
        size=config["model"]["size"],
        num_parameters=figures.get("num_parameters"),
        source=source,
        records=records,
        samples=figures.get("samples"),
        steps=figures.get("steps"),
        manifest=environment.get("manifest_sha256"),
        versions=environment.get("versions", {}),
        commit=environment.get("commit"),
        probe=probe,
        at_paper_ratio=at_paper_ratio(probe),
        partner_sentences=[] if probe is None else partner_reading(probe),
        linear=linear,
        baselines=[] if linear is None else _baselines(linear),
        linear_sentences=[] if linear is None else linear_reading(linear),
        config=yaml_text({name: _without_paths(section) for name, section in config.items() if name in _SECTIONS}),
    )


def _without_paths(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section without what tells of the machine it ran on."""
    return {name: value for name, value in section.items() if name not in _PATHS}


def _baselines(linear: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of the linear probe: features, accuracy from the picture alone, and with the title."""
    base = linear["baselines"] or {}
    rows = [
        ("this encoder, frozen", linear["picture_only"], linear["with_title"]),
        ("untrained encoder", base.get("untrained"), base.get("untrained_with_title")),
        ("raw pixels", base.get("raw_pixels"), None),
        ("PCA of the same width", base.get("pca"), None),
        ("majority", base.get("majority"), None),
        ("title alone", None, base.get("text_only")),
    ]
    return [(name, fixed(picture, 3), fixed(title, 3)) for name, picture, title in rows]
