"""What is measured: one :class:`Row` per line of the table, all through the docker client."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from builds import BUILD_ROWS
from peers import Engine, memory
from registry import Registry
from rows import Row, docker, timed

from lading.testing.daemon import find_client


def run_true(engine: Engine) -> float:
    return timed(engine, "run", "--rm", "busybox", "true")


def run_true_host(engine: Engine) -> float:
    return timed(engine, "run", "--rm", "--net", "host", "busybox", "true")


def run_parallel(engine: Engine) -> float:
    """Runs per second, forty runs eight at a time."""
    began = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: run_true(engine), range(40)))
    return 40 / (time.perf_counter() - began)


def sleeper(engine: Engine) -> None:
    docker(engine, "run", "-d", "--name", "bench", "busybox", "sleep", "100000")


def remove_sleeper(engine: Engine) -> None:
    docker(engine, "rm", "-f", "bench")


def exec_true(engine: Engine) -> float:
    return timed(engine, "exec", "bench", "true")


def restart(engine: Engine) -> float:
    return timed(engine, "restart", "-t", "0", "bench")


def ten_sleepers(engine: Engine) -> None:
    for number in range(10):
        docker(engine, "run", "-d", "--name", f"bench-{number}", "busybox", "sleep", "100000")


def remove_ten(engine: Engine) -> None:
    docker(engine, "rm", "-f", *(f"bench-{n}" for n in range(10)))


def memory_per_container(engine: Engine) -> float:
    pids = engine.per_container_pids()
    return memory(pids, "Pss") / len(pids)


def memory_of_daemon(engine: Engine) -> float:
    return memory(engine.daemon_pids(), "Pss") / 1024


def thousand(engine: Engine) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(
                lambda n: docker(engine, "create", "--name", f"many-{n}", "busybox", "true"),
                range(1000),
            )
        )


def remove_thousand(engine: Engine) -> None:
    for start in range(0, 1000, 100):
        docker(engine, "rm", "-f", *(f"many-{n}" for n in range(start, start + 100)))


def ps_all(engine: Engine) -> float:
    return timed(engine, "ps", "-a")


def own_ps(engine: Engine) -> float:
    """``lading ps`` against either engine: what the client itself costs."""
    began = time.perf_counter()
    subprocess.run(
        [find_client("lading"), "-H", engine.host, "ps"], check=True, capture_output=True
    )
    return (time.perf_counter() - began) * 1000


OUT = Path("/var/tmp") / f"lading-bench-{os.getpid()}.out"
BIG = Path("/var/tmp") / f"lading-bench-{os.getpid()}.tar"


def big_image(engine: Engine) -> None:
    """A Docker archive of about 300 MB in three layers with 24,000 files; made once."""
    if not BIG.exists():
        BIG.write_bytes(archive())


def _folders(number: int) -> list[str]:
    return [f"usr/lib{number}/d{folder}" for folder in range(80)]


def archive() -> bytes:
    import hashlib

    layers, source = [], random.Random(20140507)
    for number in range(3):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for folder in ["usr", f"usr/lib{number}", *_folders(number)]:
                # Layers that engines write have their directories in them.
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, 1_400_000_000
                tar.addfile(entry)
            for folder in _folders(number):
                for index in range(100):
                    size = source.choice((200, 1500, 4000, 9000, 48000))
                    content = source.randbytes(size // 2) + bytes(size - size // 2)
                    entry = tarfile.TarInfo(f"{folder}/f{index}")
                    entry.size, entry.mtime = len(content), 1_400_000_000
                    tar.addfile(entry, io.BytesIO(content))
        layers.append(out.getvalue())
    diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2014-05-07T00:00:00Z",
            "config": {"Cmd": ["true"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created_by": f"layer {n}"} for n in range(3)],
        }
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [
        {"Config": name, "RepoTags": ["big:latest"], "Layers": [f"{n}.tar" for n in range(3)]}
    ]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        files = [(name, config), ("manifest.json", json.dumps(manifest).encode())]
        for file, content in [*files, *((f"{n}.tar", layer) for n, layer in enumerate(layers))]:
            entry = tarfile.TarInfo(file)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def load(engine: Engine) -> float:
    subprocess.run(
        ["docker", "-H", engine.host, "rmi", "-f", "big"], capture_output=True, check=False
    )
    return timed(engine, "load", "-i", str(BIG))


def loaded(engine: Engine) -> None:
    big_image(engine)
    load(engine)


REGISTRY = Registry()


def with_registry(engine: Engine) -> None:
    """The big image, and Debian's registry on loopback, shared by both engines."""
    loaded(engine)
    REGISTRY.start()
    docker(engine, "tag", "big", f"{REGISTRY.host}/{engine.name}/big")


def without_registry(engine: Engine) -> None:
    docker(engine, "rmi", "-f", f"{REGISTRY.host}/{engine.name}/big")
    unload(engine)
    REGISTRY.stop()


def push(engine: Engine) -> float:
    REGISTRY.empty()
    return timed(engine, "push", f"{REGISTRY.host}/{engine.name}/big")


def pulled_before(engine: Engine) -> None:
    with_registry(engine)
    docker(engine, "push", f"{REGISTRY.host}/{engine.name}/big")


def pull(engine: Engine) -> float:
    name = f"{REGISTRY.host}/{engine.name}/big"
    docker(engine, "rmi", "-f", name, "big")
    took = timed(engine, "pull", name)
    docker(engine, "tag", name, "big")
    return took


def save(engine: Engine) -> float:
    return timed(engine, "save", "-o", str(OUT), "big")


def unload(engine: Engine) -> None:
    subprocess.run(
        ["docker", "-H", engine.host, "rmi", "-f", "big"], capture_output=True, check=False
    )
    BIG.unlink(missing_ok=True)
    OUT.unlink(missing_ok=True)


def changed_container(engine: Engine) -> None:
    """A container with 60 MB in 3,000 files of its own."""
    loop = "while [ $i -lt 3000 ]; do head -c 20000 /dev/urandom >/x/$i; i=$((i+1)); done"
    script = f"mkdir /x; i=0; {loop}"
    docker(engine, "run", "--name", "changed", "busybox", "sh", "-c", script)


def commit(engine: Engine) -> float:
    took = timed(engine, "commit", "changed", "committed")
    docker(engine, "rmi", "committed")
    return took


def export(engine: Engine) -> float:
    return timed(engine, "export", "-o", str(OUT), "changed")


def remove_changed(engine: Engine) -> None:
    docker(engine, "rm", "-f", "changed")
    OUT.unlink(missing_ok=True)


ROWS = [
    Row("run", "docker run --rm true, bridge", run_true, "<= 1/10", 0.1),
    Row("run-host", "docker run --rm true, host network", run_true_host),
    Row(
        "parallel",
        "runs per second, 8 at a time",
        run_parallel,
        ">= 10x",
        10,
        more=True,
        unit="1/s",
        runs=3,
        warm_up=1,
    ),
    Row(
        "exec", "docker exec true", exec_true, "<= 1/4", 0.25, prepare=sleeper, clean=remove_sleeper
    ),
    Row(
        "restart",
        "docker restart -t 0",
        restart,
        "<= 1/10",
        0.1,
        runs=10,
        prepare=sleeper,
        clean=remove_sleeper,
    ),
    Row(
        "memory",
        "PSS per idle container",
        memory_per_container,
        "<= 1536 kB",
        1536,
        absolute=True,
        unit="kB",
        runs=3,
        warm_up=0,
        prepare=ten_sleepers,
        clean=remove_ten,
    ),
    Row("daemon", "PSS of the daemon's processes", memory_of_daemon, unit="MB", runs=3, warm_up=0),
    Row("client", "lading ps as a process", own_ps, "<= 60 ms", 60, absolute=True),
    Row(
        "load",
        "docker load, 300 MB, 24,000 files",
        load,
        "<= 0.7",
        0.7,
        runs=3,
        warm_up=1,
        prepare=big_image,
        clean=unload,
    ),
    Row(
        "push",
        "docker push, the same image",
        push,
        "<= 0.7",
        0.7,
        runs=3,
        warm_up=1,
        prepare=with_registry,
        clean=without_registry,
    ),
    Row(
        "pull",
        "docker pull, the same image",
        pull,
        "<= 0.7",
        0.7,
        runs=3,
        warm_up=1,
        prepare=pulled_before,
        clean=without_registry,
    ),
    Row(
        "save",
        "docker save, the same image",
        save,
        "<= 0.7",
        0.7,
        runs=3,
        warm_up=1,
        prepare=loaded,
        clean=unload,
    ),
    Row(
        "commit",
        "docker commit, 60 MB, 3,000 files",
        commit,
        "<= 0.7",
        0.7,
        runs=3,
        warm_up=1,
        prepare=changed_container,
        clean=remove_changed,
    ),
    Row(
        "export",
        "docker export, the same container",
        export,
        "<= 0.7",
        0.7,
        runs=3,
        warm_up=1,
        prepare=changed_container,
        clean=remove_changed,
    ),
    Row(
        "ps",
        "docker ps -a, 1,000 containers",
        ps_all,
        "<= 1",
        1.0,
        runs=5,
        warm_up=1,
        prepare=thousand,
        clean=remove_thousand,
    ),
    *BUILD_ROWS,
]
