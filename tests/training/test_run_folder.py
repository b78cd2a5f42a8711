"""Which folder a run takes, and when it is refused (contract C7)."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlim_ray.data.lease import Lease
from mlim_ray.training.run_folder import RunFolder, claim_folder


def claim(out: Path | str | None, *, resume: bool = False, overwrite: bool = False) -> RunFolder:
    return claim_folder(None if out is None else str(out), "pretrain", resume=resume, overwrite=overwrite)


def make_run(path: Path, *, finished: bool) -> Path:
    folder = claim(path)
    folder.write_text("config.yaml", "train: {}\n")
    folder.write_text("metrics.jsonl", "")
    if finished:
        folder.write_json("evaluation.json", {"probe": {}})
    return path


def test_runs_are_numbered_after_the_highest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [claim(None).path for _ in range(2)] == ["runs/pretrain-001", "runs/pretrain-002"]
    for name in ("pretrain-041", "pretrain-1000x", "tune_mam-999", "pretrain-7"):
        (tmp_path / "runs" / name).mkdir()
    assert claim(None).path == "runs/pretrain-042"
    (tmp_path / "runs" / "pretrain-999").touch()
    assert claim(None).path == "runs/pretrain-1000"
    assert claim(None).path == "runs/pretrain-1001"


def test_a_new_or_empty_folder_is_taken(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    for _ in range(2):
        folder = claim(f"{out}/")
        assert folder.path == str(out) and out.is_dir()
        assert not folder.exists and not folder.is_finished


@pytest.mark.parametrize(("finished", "word"), [(True, "finished"), (False, "unfinished")])
def test_a_folder_with_a_run_is_refused_naming_the_flags(tmp_path: Path, finished: bool, word: str) -> None:
    out = make_run(tmp_path / "run", finished=finished)
    before = sorted(path.name for path in out.iterdir())
    with pytest.raises(ValueError, match=rf"{out} holds a run that is {word};.*--resume.*--overwrite"):
        claim(out)
    assert sorted(path.name for path in out.iterdir()) == before
    folder = claim(out, resume=True)
    assert folder.exists and folder.is_finished == finished
    assert sorted(path.name for path in out.iterdir()) == before


def test_overwriting_starts_from_an_empty_folder(tmp_path: Path) -> None:
    out = make_run(tmp_path / "run", finished=True)
    assert not claim(out, overwrite=True).exists
    assert list(out.iterdir()) == []


def test_a_run_that_still_goes_on_is_not_overwritten(tmp_path: Path) -> None:
    out = make_run(tmp_path / "run", finished=False)
    with Lease(str(out)):
        with pytest.raises(ValueError, match="in use by process"):
            claim(out, overwrite=True)
        assert RunFolder(str(out)).exists


@pytest.mark.parametrize("out", ["absent", "empty"])
def test_there_is_nothing_to_resume_where_there_is_no_run(tmp_path: Path, out: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="--resume: .* holds no run to continue"):
        claim(tmp_path / out, resume=True)


@pytest.mark.parametrize("overwrite", [True, False])
def test_other_files_are_never_touched(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="no run of ours"):
        claim(tmp_path, overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    folder = claim(tmp_path / "run")
    folder.write_json("evaluation.json", {"probe": {"mlm_paired": 1.5}})
    assert folder.read_json("evaluation.json") == {"probe": {"mlm_paired": 1.5}}
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["evaluation.json"]
