"""The card says what is known, marks what is not, and its way of loading works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlim_ray.data.prepared import PreparedSet
from mlim_ray.reporting.model_card import UNKNOWN, render_model_card
from mlim_ray.training.export import export_model
from tests.builders import make_config, make_model
from tests.data.pictures import noise
from tests.prepared_sets import write_unfilled
from tests.reporting.made_pages import ENVIRONMENT, LINEAR, evaluation


def card(**changes: Any) -> str:
    licence = changes.pop("licence", None)
    content: dict[str, Any] = {
        "title": "pretrain-003",
        "source": "catalogue",
        "records": {"train": 9_412, "val": 1_100, "test": 1_200},
        "config": make_config(model={"size": "tiny", "licence": licence}).model_dump(mode="json"),
        "environment": ENVIRONMENT,
        "evaluation": evaluation(),
    }
    return render_model_card(**(content | changes))


def head(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text.split("---\n")[1]))


def test_a_card_has_data_config_scores_use_and_citation() -> None:
    text = card()
    for said in (
        "catalogue: 9,412 train, 1,100 val, 1,200 test records",
        "1,071,234 parameters",
        "128,000 records in 2,000 steps",
        "| MLM, nats per hidden piece | 2.911 | 5.022 | 4.133 |",
        "| this encoder, frozen | 0.635 | 0.823 |",
        f"| raw pixels | {LINEAR['baselines']['raw_pixels']:.3f} |",
        "worse than raw pixels",
        "kind: mam",
        "## What it is for",
        "2109.12178",
    ):
        assert said in text, said
    assert not re.search(r"\b(nan|None|null)\b", text.split("## Configuration")[0])
    for line in text.splitlines():
        assert line == line.rstrip()


def test_a_licence_is_what_was_given_or_is_marked_as_unknown() -> None:
    assert head(card(licence="cc-by-nc-4.0"))["license"] == "cc-by-nc-4.0"
    assert "| licence | cc-by-nc-4.0 |" in card(licence="cc-by-nc-4.0")
    assert head(card())["license_name"] == UNKNOWN and f"| licence | {UNKNOWN} |" in card()
    odd = head(card(licence='mine: "all"\nlibrary_name: other'))
    assert odd["license"] == 'mine: "all" library_name: other' and odd["library_name"] == "transformers"


@pytest.mark.parametrize("changes", [{"linear_probe": None}, {"probe": None}, None])
def test_a_card_without_scores_still_stands(changes: dict[str, Any] | None) -> None:
    text = card(evaluation={} if changes is None else evaluation(**changes))
    assert ("Not measured yet." in text) == (changes != {"linear_probe": None})
    assert head(text)["library_name"] == "transformers"


def test_no_folder_of_the_machine_is_told() -> None:
    config = make_config(prepare={"image_folder": "/home/me/photos"}, model={"init_from": "/home/me/runs/a"})
    assert "/home/me" not in card(config=config.model_dump(mode="json"))


def test_the_way_of_loading_that_it_shows_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = PreparedSet.open(str(write_unfilled(tmp_path / "set", "generated:50", 16, vocabulary_size=150)))
    model = make_model(vocab_size=prepared.tokenizer().vocab_size, max_tokens=prepared.manifest.text.max_tokens)
    export_model(model, prepared, str(tmp_path / "model"))
    noise(40, 40).save(tmp_path / "picture.jpg")
    monkeypatch.chdir(tmp_path)
    (snippet,) = re.findall(r"```python\n(.*?)```", card(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(snippet, names)
    assert names["outputs"].reconstruction.shape == (1, 3, 16, 16)
