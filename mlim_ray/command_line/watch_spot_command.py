"""`mlim-ray watch-spot`: on a spot machine, beside Ray: drain its node when AWS says that it is taken away."""

import argparse
from typing import Any

from mlim_ray.command_line.knob_help import WholeWordHelp


def add_watch_spot_command(commands: Any) -> None:
    """Add the command to the program's."""
    parser = commands.add_parser(
        "watch-spot",
        usage="%(prog)s [--address A] [--node-id ID] [--poll-s S]",
        help="on a spot machine: drain its Ray node when AWS says that it goes",
        description="Ask the instance metadata service (version 2) again and again for the notice that a spot machine "
        "gets before it is taken away, and drain its Ray node until then: training saves a checkpoint, and nothing new "
        "is placed there. Ends once the node is drained; on a machine that is no spot machine it never does.",
        formatter_class=WholeWordHelp,
    )
    parser.add_argument(
        "--address",
        metavar="A",
        default="auto",
        help="the Ray that the node belongs to (default: that of this machine)",
    )
    parser.add_argument("--node-id", metavar="ID", help="the node to drain (default: that of this machine)")
    parser.add_argument("--poll-s", metavar="S", type=float, default=5.0, help="seconds between questions (default: 5)")
    parser.add_argument(
        "--metadata-url", metavar="URL", help="of the metadata service (default: AWS's, http://169.254.169.254)"
    )
    parser.set_defaults(run=_watch_spot)


def _watch_spot(parsed: argparse.Namespace) -> None:
    if not 0 < parsed.poll_s <= 60:
        raise ValueError(f"--poll-s: given {parsed.poll_s:g}, expected seconds above 0 and at most 60")

    from functools import partial

    from mlim_ray.pipelines.spot_watcher import METADATA_URL, MetadataClient, drain_node, watch
    from mlim_ray.reporting.progress import say

    client = MetadataClient(parsed.metadata_url or METADATA_URL)
    notice = watch(client, partial(drain_node, parsed.address, parsed.node_id), poll_s=parsed.poll_s)
    if notice is not None:
        say(f"spot notice: {notice.action} at {notice.time.isoformat()}; the node is drained")
