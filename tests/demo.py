"""The main job, shown: a daemon on a scratch root, an image through a registry, a container."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lading.testing.daemon import Daemon, busybox_image, find_client, nothing_left
from lading.testing.waiting import PATIENCE_SECONDS

DOCKERFILE = """\
FROM {image}
LABEL maintainer=demo
RUN echo 'built by Lading' > /etc/motd
CMD ["cat", "/etc/motd"]
"""


def say(text: str) -> None:
    print(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def show(daemon: Daemon, *arguments: str, stdin: bytes | None = None) -> str:
    """Run one ``lading`` command as a user would, with its output on the terminal."""
    shown = " ".join(a if " " not in a else repr(a) for a in arguments)
    print(f"$ lading {shown}", flush=True)
    done = daemon.client("lading", *arguments, input=stdin, check=False)
    sys.stdout.write(done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace"))
    sys.stdout.flush()
    if done.returncode != 0:
        sys.exit(f"demo: lading {shown} failed with {done.returncode}\n{daemon.log()}")
    return done.stdout.decode(errors="replace")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def registry(port: int) -> Iterator[None]:
    """The embedded registry on loopback, over a directory that goes away afterwards."""
    with tempfile.TemporaryDirectory(prefix="lading-registry-") as root:
        command = [find_client("lading"), "registry", "serve", "--root", root]
        process = subprocess.Popen([*command, "--listen", f"127.0.0.1:{port}"])
        try:
            wait_for(port, process)
            yield
        finally:
            process.terminate()
            process.wait(30)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    sys.exit("demo: the registry did not start")


def main() -> None:
    port = free_port()
    image = f"127.0.0.1:{port}/demo/busybox:latest"
    with nothing_left(), registry(port), Daemon() as daemon:
        say("a small base image from the host's busybox")
        show(daemon, "import", "-", image, stdin=busybox_image())
        show(daemon, "images")
        say("push it to the embedded registry, remove it, pull it back")
        show(daemon, "push", image)
        show(daemon, "rmi", image)
        show(daemon, "pull", image)
        say("run")
        show(daemon, "run", "--rm", image, "echo", "hello from a container")
        show(daemon, "run", "-d", "--name", "web", "-p", "127.0.0.1::80", image, "httpd", "-f")
        show(daemon, "ps")
        say("build")
        with tempfile.TemporaryDirectory(prefix="lading-demo-") as context:
            (Path(context) / "Dockerfile").write_text(DOCKERFILE.format(image=image))
            show(daemon, "build", "-t", "demo", context)
        show(daemon, "run", "--rm", "demo")
        show(daemon, "history", "demo")
        show(daemon, "ps", "-a")
        say("clean up")
        show(daemon, "rm", "-f", "web")
    print("\ndemo: done, nothing left behind")


if __name__ == "__main__":
    main()
