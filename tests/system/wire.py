"""What goes over a network's wires: counts the packets that hold some bytes, until standard input ends.

python -m tests.system.wire TEXT, in the network; prints how many packets held TEXT, and how many there were.
"""

from __future__ import annotations

import select
import socket
import sys

ETH_P_ALL = 3
_MOST_BYTES = 1 << 17


def main() -> None:
    wanted = sys.argv[1].encode()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        print("listening", flush=True)
        held = seen = 0
        while True:
            ready, _, _ = select.select([wire, sys.stdin], [], [])
            if wire in ready:
                held += wanted in wire.recv(_MOST_BYTES)
                seen += 1
            elif not sys.stdin.read(1):
                print(held, seen, flush=True)
                return


if __name__ == "__main__":
    main()
