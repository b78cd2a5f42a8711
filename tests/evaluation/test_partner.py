"""The partner probe with intervals: the figures of the probe itself, over all records and over seen or new titles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mlim_ray.config.partner import PartnerConfig
from mlim_ray.evaluation.partner import PARTNERS, PartnerResult, partner
from mlim_ray.evaluation.partner_probe import HIDDEN_RATIOS, make_probe_set, partner_measures, probe_partners
from mlim_ray.evaluation.plain import plain_result
from tests.builders import NUM_CELLS, make_model
from tests.evaluation.benches import STATISTICS, make_bench, make_examples

CONFIG = PartnerConfig()


@pytest.fixture(scope="module")
def found() -> PartnerResult:
    return partner(make_bench(title_seen_R=np.arange(40) % 2 == 0), CONFIG)


def test_the_figures_and_the_score_are_those_of_the_probe(found: PartnerResult) -> None:
    bench = make_bench()
    probe = make_probe_set(
        bench.test.records,
        num_cells=NUM_CELLS,
        seed=0,
        unigram_entropy=STATISTICS.unigram_entropy,
        pixel_variance=STATISTICS.pixel_variance,
    )
    losses = probe_partners(bench.model, probe, wrong_partners=True)
    assert found.score == pytest.approx(partner_measures(losses, probe)["probe"], rel=1e-6)
    assert [(f.side, f.hidden_ratio) for f in found.figures] == [
        (s, r) for s in ("mlm", "recon") for r in HIDDEN_RATIOS
    ]
    for figures in found.figures:
        at = losses[HIDDEN_RATIOS.index(figures.hidden_ratio)]
        for name in PARTNERS:
            estimate = figures.losses[name]
            assert estimate.mean == pytest.approx(getattr(at, f"{figures.side}_{name}"), rel=1e-6)
            assert estimate.low < estimate.mean < estimate.high
        for name, difference in figures.differences.items():
            assert difference.mean == pytest.approx(figures.losses[name].mean - figures.losses["paired"].mean, abs=1e-9)


def test_seen_and_new_titles_make_up_the_whole(found: PartnerResult) -> None:
    assert [(part.seen, part.num_records) for part in found.by_title] == [(True, 20), (False, 20)]
    whole = next(f for f in found.figures if (f.side, f.hidden_ratio) == ("recon", 0.8))
    # Every picture has as many pixels, so that the mean of both halves is the mean of all.
    for name in PARTNERS:
        halves = [part.figures[1].losses[name].mean for part in found.by_title]
        assert np.mean(halves) == pytest.approx(whole.losses[name].mean, rel=1e-6)
    assert halves[0] != halves[1]


@pytest.mark.parametrize("num_seen", [40, 36, 2, 0])
def test_parts_of_too_few_records_have_no_figures(num_seen: int) -> None:
    result = partner(make_bench(title_seen_R=np.arange(40) < num_seen), CONFIG)
    parts = {part.seen: (part.num_records, len(part.figures)) for part in result.by_title}
    assert parts == {
        True: (num_seen, 2 if num_seen >= 10 else 0),
        False: (40 - num_seen, 2 if 40 - num_seen >= 10 else 0),
    }
    told = f"never saw the titles of {40 - num_seen} of 40 records: too few"
    assert any(told in sentence for sentence in result.verdict()) == (40 - num_seen < 10)
    tables = plain_result(result)["tables"]
    assert len(tables[-1]["rows"]) == sum(count for _, count in parts.values())


def test_titles_that_records_share_are_told(found: PartnerResult) -> None:
    examples = make_bench().test
    rows = {ids.tobytes() for ids in examples.records.token_ids_RT}
    assert found.num_titles == len(rows) < found.num_records == 40
    assert f"on 40 test records, which share {len(rows)} titles;" in found.tables()[0].caption


def test_nothing_is_said_of_titles_where_it_is_not_known_what_was_pre_trained_on() -> None:
    result = partner(make_bench(title_seen_R=None), CONFIG)
    assert result.by_title == [] and not any("titles" in sentence for sentence in result.verdict())


def test_a_model_blind_to_its_partner_is_said_to_be_so() -> None:
    blind = make_model()
    with torch.no_grad():
        blind.mlm_head.norm.weight.zero_()
        blind.image_decoder.layers[-2].weight.zero_()
    result = partner(make_bench(model=blind.eval()), CONFIG)
    assert all("makes no difference to" in sentence for sentence in result.verdict())
    assert all(d.mean == pytest.approx(0, abs=1e-9) for f in result.figures for d in f.differences.values())


def test_a_reader_of_pictures_is_told_from_a_blind_one() -> None:
    """Pictures that give the words away: one piece for dark ones, another for light ones, and a model that knows."""
    examples = make_examples("test", 40, 5)
    records = examples.records
    is_light = np.arange(40) % 2 == 1
    pixels = np.where(is_light[:, None, None, None], np.uint8(255), np.uint8(0)) + np.zeros_like(records.pixels_RHW3)
    words = records.word_of_token_RT >= 0
    ids = np.where(words, np.where(is_light, 6, 5)[:, None], records.token_ids_RT)
    bench = make_bench(test=replace(examples, records=records._replace(pixels_RHW3=pixels, token_ids_RT=ids)))
    model = make_model()
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    pictures = torch.from_numpy(pixels / 255.0).float().permute(0, 3, 1, 2)
    tokens, hidden = torch.from_numpy(ids).long(), torch.from_numpy(words)
    present = torch.arange(ids.shape[1])[None] < torch.from_numpy(records.num_tokens_R.astype(int))[:, None]
    for _ in range(40):
        logits, _ = model(pictures, tokens, present, torch.zeros(40, NUM_CELLS, dtype=torch.bool), hidden)
        loss = torch.nn.functional.cross_entropy(logits, tokens[hidden])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    result = partner(replace(bench, model=model.eval()), CONFIG)
    mlm = [figures for figures in result.figures if figures.side == "mlm"]
    assert all(figures.differences["blank"].excludes_zero for figures in mlm[1:])
    assert "another record's picture raises MLM by" in result.verdict()[0]


def test_only_so_many_records_are_probed_and_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    bench = make_bench(on_progress=lambda *line: told.append(line), statistics=None)
    result = partner(bench, PartnerConfig(num_records=15))
    assert result.num_records == 15 and result.score is None
    assert told[-1] == ("partner", 4, 4) and len(told) == 5


def test_every_table_has_rows_of_the_same_columns_and_goes_into_json(found: PartnerResult) -> None:
    for table in found.tables():
        assert len({tuple(row) for row in table.rows}) == 1 and table.caption
    content = plain_result(found)
    assert [table["title"] for table in content["tables"]] == [table.title for table in found.tables()]
    assert content["tables"][0]["rows"][2]["true"].keys() == {"mean", "low", "high"}
