"""`dpdau` as a fork of `warm_process.py`: arguments, folder, environment and files go there.

It is run without site packages, so that it starts at once.
"""

import json
import os
import socket
import sys


def main() -> None:
    """Ends with the exit code of the command."""
    call = {"arguments": sys.argv[2:], "folder": os.getcwd(), "environment": dict(os.environ)}
    content = json.dumps(call).encode()
    with socket.socket(socket.AF_UNIX) as way:
        way.connect(sys.argv[1])
        socket.send_fds(way, [len(content).to_bytes(8, "big")], [0, 1, 2])
        way.sendall(content)
        sys.exit(int(way.recv(8)))


if __name__ == "__main__":
    main()
