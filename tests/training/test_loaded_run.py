import json
from pathlib import Path

import pytest
import torch

from mlim_ray.config.files import config_text
from mlim_ray.data.storage import MissingPathError
from mlim_ray.training.loaded_run import load_run
from mlim_ray.training.run_folder import RunFolder
from tests.builders import make_config, make_model
from tests.model_folder import write_model


def test_a_model_folder_gives_its_weights_shape_and_tokenizer(tmp_path: Path) -> None:
    run = load_run(str(write_model(tmp_path, ["red shirt"], seed=3)))
    expected = make_model(3, vocab_size=run.tokenizer.vocab_size).state_dict()
    assert run.step is None and not run.model.training
    assert all(torch.equal(weight, expected[name]) for name, weight in run.model.state_dict().items())
    assert (run.prepare.image_size, run.prepare.max_tokens) == (16, 10)
    again = load_run(str(tmp_path / "model"))
    assert again.sha256 == run.sha256


def test_the_newest_checkpoint_wins_and_its_sha256_tells(tmp_path: Path) -> None:
    write_model(tmp_path / "run", ["red shirt"])
    first = load_run(str(tmp_path / "run"))
    shape = {"vocab_size": first.tokenizer.vocab_size}
    RunFolder(str(tmp_path / "run")).checkpoints().save(7, make_model(5, **shape).state_dict(), {})
    second = load_run(str(tmp_path / "run"))
    assert (second.step, second.sha256 == first.sha256) == (7, False)
    assert torch.equal(second.model.token_positions, make_model(5, **shape).token_positions)


def test_the_cleaning_is_that_of_the_run_without_its_columns(tmp_path: Path) -> None:
    write_model(tmp_path, ["red shirt"])
    config = make_config()
    prepare = config.prepare.model_copy(
        update={"fit": "letterbox", "background_colour": (1, 2, 3), "text_column": "caption", "image_size": 16}
    )
    (tmp_path / "config.yaml").write_text(config_text(config.model_copy(update={"prepare": prepare})))
    found = load_run(str(tmp_path)).prepare
    assert (found.fit, found.background_colour, found.text_column) == ("letterbox", (1, 2, 3), None)


def test_what_is_no_run_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="RUN: .*nothing is no folder"):
        load_run(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="RUN: .* holds neither a good checkpoint nor a model folder"):
        load_run(str(tmp_path))
    write_model(tmp_path / "run", ["red shirt"])
    config = tmp_path / "run" / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_hidden_layers": 1}))
    with pytest.raises(ValueError, match=r"do not fit its config: encoder\.layers\.1"):
        load_run(str(tmp_path / "run"))
