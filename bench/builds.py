"""The rows about builds: cached, many small commands, a big context; all by the classic builder."""

from __future__ import annotations

import io
import os
import random
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

from peers import Engine
from rows import Row, docker

STEPS = 60
COMMANDS = 20
CONTEXT_FILES = 1024

PLACE = Path(tempfile.gettempdir()) / f"lading-bench-{os.getpid()}-context"


def build(engine: Engine, folder: str, *flags: str) -> float:
    """The time of ``docker build`` of one of the contexts."""
    command = ["docker", "-H", engine.host, "build", *flags, "-t", "built", str(PLACE / folder)]
    began = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, check=False, env={**os.environ, "DOCKER_BUILDKIT": "0"}
    )
    took = (time.perf_counter() - began) * 1000
    if done.returncode:
        raise RuntimeError(f"{engine.name}: build: {(done.stdout + done.stderr).decode()}")
    return took


def context(folder: str, lines: list[str]) -> Path:
    place = PLACE / folder
    place.mkdir(parents=True, exist_ok=True)
    (place / "Dockerfile").write_text("FROM busybox\n" + "\n".join(lines) + "\n")
    return place


def sixty_steps(engine: Engine) -> None:
    """ENV, COPY and RUN in turn, built once."""
    lines = []
    for number in range(STEPS // 3):
        lines += [f"ENV A{number}=b", f"COPY f{number} /d/", f"RUN echo {number} > /r{number}"]
    place = context("cached", lines)
    for number in range(STEPS // 3):
        (place / f"f{number}").write_text(str(number))
    build(engine, "cached")


def cached(engine: Engine) -> float:
    return build(engine, "cached")


def posted(engine: Engine) -> float:
    """The same without the client, whose start alone takes longer than the goal allows: the
    request with its context, until the answer is complete."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        archive.add(PLACE / "cached", ".")
    head = (
        "POST /v1.41/build?t=built&rm=1 HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n"
        f"Content-Type: application/x-tar\r\nContent-Length: {body.tell()}\r\n\r\n"
    )
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(engine.host.removeprefix("unix://"))
        began = time.perf_counter()
        client.sendall(head.encode() + body.getvalue())
        answer = b""
        while piece := client.recv(1 << 16):
            answer += piece
        took = (time.perf_counter() - began) * 1000
    # The first of them is the warm-up: dockerd hashes what its client packs otherwise.
    if b"Successfully built" not in answer:
        raise RuntimeError(f"{engine.name}: build: {answer.decode()}")
    return took


def twenty_commands(engine: Engine) -> None:
    context("commands", [f"RUN echo {number} > /r{number}" for number in range(COMMANDS)])


def commands(engine: Engine) -> float:
    return build(engine, "commands", "--no-cache")


def big_context(engine: Engine) -> None:
    """1 GB in files of 1 MB that do not compress."""
    place = context("big", ["COPY . /data"])
    source = random.Random(20140507)
    for number in range(CONTEXT_FILES):
        path = place / f"d{number % 32}" / f"f{number}"
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_bytes(source.randbytes(1 << 20))


def copied(engine: Engine) -> float:
    took = build(engine, "big", "--no-cache")
    docker(engine, "rmi", "-f", "built")
    return took


def clean(engine: Engine) -> None:
    """Remove images and contexts."""
    shutil.rmtree(PLACE, ignore_errors=True)
    command = ["docker", "-H", engine.host, "rmi", "-f", "built"]
    subprocess.run(command, capture_output=True, check=False)
    docker(engine, "image", "prune", "-f")


BUILD_ROWS = [
    Row(
        "build-cached",
        f"POST /build, {STEPS} steps, cached",
        posted,
        "<= 1/5",
        0.2,
        runs=7,
        warm_up=1,
        prepare=sixty_steps,
        clean=clean,
    ),
    Row(
        "build-cached-client",
        f"docker build, {STEPS} steps, cached",
        cached,
        runs=7,
        warm_up=1,
        prepare=sixty_steps,
        clean=clean,
    ),
    Row(
        "build-commands",
        f"docker build, {COMMANDS} small RUNs, no cache",
        commands,
        "<= 1/5",
        0.2,
        runs=3,
        warm_up=1,
        prepare=twenty_commands,
        clean=clean,
    ),
    Row(
        "build-context",
        "docker build, COPY of 1 GB",
        copied,
        "<= 0.7",
        0.7,
        runs=3,
        warm_up=1,
        prepare=big_context,
        clean=clean,
    ),
]
