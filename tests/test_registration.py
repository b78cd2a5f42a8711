"""`import mlim_ray` is all that transformers needs to load a run's model, and it costs next to nothing by itself."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mlim_ray.data.prepared import PreparedSet
from mlim_ray.training.export import export_model
from tests.builders import make_model
from tests.prepared_sets import write_unfilled

LOADS = """
import numpy as np
model = transformers.AutoModel.from_pretrained(sys.argv[1])
processor = transformers.AutoProcessor.from_pretrained(sys.argv[1])
assert type(model).__module__ == "mlim_ray.model.pretrained" and not model.training
assert type(processor).__name__ == "MlimProcessor"
assert type(processor.image_processor).__name__ == "MlimImageProcessor"
out = model(**processor(images=np.zeros((20, 30, 3), np.uint8), text="red bowl"))
assert out.reconstruction.shape == (1, 3, 16, 16)
"""
ORDERS = {
    "ours first": "import mlim_ray, transformers",
    "theirs first": "import transformers, mlim_ray",
    "ours after their Auto classes": "import transformers\ntransformers.AutoModel\nimport mlim_ray",
    "in the middle of their own import": "import mlim_ray, transformers.modeling_layers, transformers",
    "our model first": "import mlim_ray.model.pretrained, transformers",
}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    prepared = PreparedSet.open(str(write_unfilled(folder / "set", "generated:50", 16, vocabulary_size=150)))
    model = make_model(vocab_size=prepared.tokenizer().vocab_size, max_tokens=prepared.manifest.text.max_tokens)
    export_model(model, prepared, str(folder / "model"))
    return folder / "model"


def run_alone(code: str, *words: str) -> None:
    """Run code in a process where ray cannot be imported."""
    no_ray = "import sys\nsys.modules['ray'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", no_ray + textwrap.dedent(code), *words],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_auto_classes_load_a_run_without_ray_and_without_remote_code(model_folder: Path, order: str) -> None:
    run_alone(f"{order}\n{LOADS}", str(model_folder))
    assert not list(model_folder.glob("*.py"))
    assert "auto_map" not in "".join(path.read_text() for path in model_folder.glob("*.json"))


@pytest.mark.slow
def test_ours_alone_imports_nothing_heavy_and_watches_only_until_it_has_registered() -> None:
    run_alone(
        """
        import mlim_ray, mlim_ray.data.records
        heavy = {"torch", "transformers", "mlim_ray.model", "mlim_ray.inference"} & set(sys.modules)
        assert not heavy, heavy

        def watching():
            return any(type(finder).__module__ == "mlim_ray.registration" for finder in sys.meta_path)

        assert watching()
        import transformers
        import mlim_ray.inference
        assert "mlim_ray.model.pretrained" not in sys.modules and watching()
        from transformers import AutoConfig
        assert "mlim_ray.model.pretrained" in sys.modules and not watching()
        assert type(transformers.modeling_utils.__loader__).__name__ == "SourceFileLoader"
        assert "exec_module" not in vars(transformers.modeling_utils.__loader__)
        import mlim_ray.data
        assert not watching()
        """
    )


def test_only_what_there_is_can_be_had() -> None:
    import mlim_ray
    from mlim_ray.inference import load

    assert mlim_ray.load is load
    with pytest.raises(AttributeError, match="has no attribute 'store'"):
        mlim_ray.store  # noqa: B018
