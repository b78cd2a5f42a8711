"""`mlim-ray demo RUN`: a page on this machine where a model is shown pictures and titles."""

import argparse
from typing import Any

from mlim_ray.command_line.errors import PlainParser
from mlim_ray.command_line.knob_help import WholeWordHelp
from mlim_ray.command_line.knobs import add_knobs, apply_knobs
from mlim_ray.command_line.result_commands import ResultConfig

_PORT = 8_765
_MOST_PORT = 65_535


def add_demo_command(commands: Any) -> None:
    """Add the command to the program's."""
    parser: PlainParser = commands.add_parser(
        "demo",
        usage="%(prog)s RUN [--neighbours SOURCE] [--flag VALUE ...]",
        help="show the model of RUN pictures and titles on a page of this machine",
        description="Serve a page on 127.0.0.1 until Ctrl-C: drop a picture or type a title, and the model of RUN "
        "fills in hidden words, paints hidden cells and finds the nearest records. Nothing leaves this machine.",
        formatter_class=WholeWordHelp,
    )
    parser.add_argument("model_run", metavar="RUN", help="folder of a run, a search or a model, local or s3://")
    parser.add_argument(
        "--neighbours",
        metavar="SOURCE",
        help="records among which the nearest are looked for: what mlim-ray embed wrote with this run, or a source of "
        "records, which are embedded at the start",
    )
    parser.add_argument(
        "--sample",
        metavar="N",
        type=int,
        help="most records of SOURCE (default: 1,000, or 100,000 that are embedded already)",
    )
    parser.add_argument(
        "--port", metavar="PORT", type=int, default=_PORT, help="where to listen; 0: any (default: %(default)s)"
    )
    add_knobs(parser, ResultConfig)
    parser.set_defaults(run=_demo)


def _demo(parsed: argparse.Namespace) -> None:
    apply_knobs(ResultConfig(), parsed)
    if not 0 <= parsed.port <= _MOST_PORT:
        raise ValueError(f"--port: given {parsed.port}, expected 0 to {_MOST_PORT:,}")
    if parsed.sample is not None and parsed.sample < 1:
        raise ValueError(f"--sample: given {parsed.sample}, expected 1 or more")

    from mlim_ray.data.contact import check_readable
    from mlim_ray.inference import load
    from mlim_ray.inference.answer import Respondent
    from mlim_ray.inference.gallery import open_gallery
    from mlim_ray.reporting.demo_server import DemoServer
    from mlim_ray.reporting.progress import Stages, say
    from mlim_ray.training.loaded_run import prepare_config_of

    check_readable(parsed.model_run, parsed.neighbours)
    model = load(parsed.model_run)
    shape = model.model.config
    gallery = None
    if parsed.neighbours is not None:
        config = apply_knobs(ResultConfig(prepare=prepare_config_of(parsed.model_run, shape)), parsed).prepare
        with Stages("records") as stages:

            def advance(done: int, total: int) -> None:
                stages.advance("neighbours", done, total)

            gallery = open_gallery(parsed.neighbours, model, config, parsed.sample, advance)
        say(f"neighbours: {len(gallery.keys):,} records of {parsed.neighbours}")
    facts = (
        f"{shape.num_hidden_layers} layers of width {shape.hidden_size}, pictures of {shape.image_size} x "
        f"{shape.image_size} pixels in {shape.num_cells} cells, titles of up to {shape.max_tokens} pieces."
    )
    try:
        server = DemoServer(Respondent(model, gallery), parsed.model_run, facts, parsed.port)
    except OSError as error:
        raise ValueError(f"--port {parsed.port}: cannot be listened on ({error.strerror}); name another") from error
    with server:
        say(f"demo: {server.url} (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("demo ended")
