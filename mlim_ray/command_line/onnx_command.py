"""`mlim-ray export-onnx RUN OUT.onnx`: the encoder of a run's model for onnxruntime, checked against torch."""

import argparse
from typing import Any

from mlim_ray.command_line.knob_help import WholeWordHelp

_SUFFIX = ".onnx"


def add_onnx_command(commands: Any) -> None:
    """Add the command to the program's."""
    parser = commands.add_parser(
        "export-onnx",
        usage="%(prog)s RUN OUT.onnx [--overwrite] [--json]",
        help="write the encoder of RUN's model as an ONNX file",
        description="Write the encoder of RUN's model as one ONNX file, in float32, for any number of records and any "
        "length of text, and compare onnxruntime's outputs with torch's. Needs pip install 'mlim-ray[onnx]'.",
        formatter_class=WholeWordHelp,
    )
    parser.add_argument("model_run", metavar="RUN", help="folder of a run, a search or a model, local or s3://")
    parser.add_argument("out", metavar="OUT.onnx", help="file to write, local or s3://")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that lies there")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, the last line of the output")
    parser.set_defaults(run=_export)


def _export(parsed: argparse.Namespace) -> None:
    if not parsed.out.lower().endswith(_SUFFIX):
        raise ValueError(f"OUT {parsed.out}: expected a file name that ends in {_SUFFIX}")

    from mlim_ray.data import storage
    from mlim_ray.data.contact import check_readable, check_writable

    check_readable(parsed.model_run, parsed.out)
    out = storage.absolute(parsed.out)
    if storage.is_folder(out):
        raise ValueError(f"OUT {parsed.out}: is a folder, expected a file name in it")
    if storage.exists(out) and not parsed.overwrite:
        raise ValueError(f"OUT {parsed.out}: a file lies there; name a new one, or replace it with --overwrite")
    check_writable(out.rpartition("/")[0])

    from mlim_ray.inference import load
    from mlim_ray.inference.onnx_export import OPSET, TOLERANCE, export_onnx, measure_parity
    from mlim_ray.reporting.progress import say, say_json

    model = load(parsed.model_run, device="cpu").model
    content = export_onnx(model)
    parity = measure_parity(model, content)
    if not parity.largest_difference <= TOLERANCE:
        raise RuntimeError(
            f"onnxruntime is up to {parity.largest_difference:.1e} away from torch, at most {TOLERANCE:.0e} is allowed"
        )
    storage.write_bytes_atomically(out, content)
    shape = model.config
    say(f"exported: {parsed.out} ({len(content) / 1e6:,.1f} MB, opset {OPSET})")
    say(
        f"takes pixel_values [B, 3, {shape.image_size}, {shape.image_size}], input_ids and attention_mask [B, T], T up "
        f"to {shape.max_tokens}, bool_masked_pos [B, {shape.num_cells}]"
    )
    say(
        f"gives last_hidden_state [B, {shape.num_cells} + T, {shape.hidden_size}] and pooler_output "
        f"[B, {shape.hidden_size}]"
    )
    say(
        f"onnxruntime {parity.runtime} is at most {parity.largest_difference:.1e} away from torch on "
        f"{parity.num_batches} batches"
    )
    if parsed.json:
        say_json(
            {
                "out": parsed.out,
                "num_bytes": len(content),
                "opset": OPSET,
                "largest_difference": parity.largest_difference,
                "onnxruntime": parity.runtime,
            }
        )
