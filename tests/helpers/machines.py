"""Machines for the stories.

Processes with a home, cache and configuration of their own, and a web server.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENCODE = """
import sys
import pillow_cwic
from PIL import Image
picture, model, output, pixels = sys.argv[1:]
Image.open(picture).save(output, model=model)
Image.open(output).save(pixels)  # the same process knows the model that it encoded with
"""
OPEN = """
import sys
import pillow_cwic
from PIL import Image
Image.open(sys.argv[1]).save(sys.argv[2])
"""


class Machine:
    """A home of its own: cache and configuration are separate.

    No variable of ours is set unless it is given.
    """

    def __init__(self, home: Path, **variables: str) -> None:
        home.mkdir()
        self.cache = home / "cache"
        kept = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith("PILLOW_CWIC") and not k.lower().endswith("_proxy")
        }
        folders = {
            "PILLOW_CWIC_CACHE_DIR": str(self.cache),
            "XDG_CONFIG_HOME": str(home / "config"),
            "HOME": str(home),
        }
        self.environment = {**kept, **folders, "PILLOW_CWIC_DEVICE": "cpu", **variables}

    def python(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs Python there, in a new process."""
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=120
        )


@contextmanager
def http_server(folder: Path) -> Iterator[str]:
    """`python -m http.server` in a process of its own; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "http.server",
        str(port),
        "--bind",
        "127.0.0.1",
        "--directory",
        str(folder),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except ConnectionError:
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
