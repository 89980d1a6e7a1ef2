"""The bodies of ``POST /containers/create``: from the flags of one call to JSON."""

from __future__ import annotations

import json
import os
import shlex
from typing import Any

from lading.cli.creation import mounts, ports
from lading.cli.creation.environment import labels, proxies, variables
from lading.cli.creation.networks import mode_and_endpoints
from lading.cli.creation.values import device, pairs
from lading.cli.errors import Failure
from lading.cli.flags import Call
from lading.cli.session import Session

Body = dict[str, Any]

#: Where Lading's daemon reads what Docker's API has no place for.
ROOTFS = "lading.rootfs"
#: What stands for the image of a container that has none.
NO_IMAGE = "scratch"
RESTARTS = ("no", "always", "unless-stopped", "on-failure")


def creation_body(call: Call) -> Body:
    """The whole body; raises Failure with exit code 125."""
    image, command = call.args[0], call.args[1:]
    _check(call)
    body = _config(call, image, command)
    mode, endpoints = mode_and_endpoints(call)
    body["HostConfig"] = _host_config(call, mode)
    body["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    if call.on("rootfs"):
        body["Image"] = NO_IMAGE
        body["Labels"][ROOTFS] = _rootfs(image)
    body["Labels"] |= _hooks(call.texts("hook"))
    return body


def _rootfs(text: str) -> str:
    """The directory by its whole name, with the suffix that says how it is used."""
    path, colon, mode = text.rpartition(":")
    if colon and mode in ("rw", "ro", "O"):
        return f"{os.path.abspath(path)}:{mode}"
    return os.path.abspath(text)


def _hooks(values: list[str]) -> dict[str, str]:
    """``STAGE=COMMAND`` as labels; several of one stage become a list."""
    found: dict[str, list[Any]] = {}
    for value in values:
        stage, equals, text = value.partition("=")
        try:
            hook = json.loads(text) if text.lstrip().startswith(("{", "[")) else shlex.split(text)
        except ValueError as error:
            raise Failure(f'invalid --hook "{value}": {error}', code=125) from error
        if not equals or not hook:
            raise Failure(f'invalid --hook "{value}": it takes STAGE=COMMAND', code=125)
        if isinstance(hook, list) and isinstance(hook[0], str):
            hook = {"path": hook[0], "args": hook}
        found.setdefault(stage, []).extend(hook if isinstance(hook, list) else [hook])
    return {f"lading.hooks.{stage}": json.dumps(hooks) for stage, hooks in found.items()}


def attached(call: Call) -> tuple[bool, bool, bool]:
    """Which of stdin, stdout and stderr the client connects to."""
    if "detach" in call.flag_names and call.on("detach"):
        return False, False, False
    asked = call.texts("attach")
    if asked:
        return "stdin" in asked, "stdout" in asked, "stderr" in asked
    return call.on("interactive"), True, True


def _check(call: Call) -> None:
    if "detach" in call.flag_names and call.on("detach") and call.texts("attach"):
        raise Failure("conflicting options: cannot specify both --attach and --detach", code=125)
    if call.on("rm") and call.text("restart") not in ("", "no"):
        raise Failure("conflicting options: cannot specify both --restart and --rm", code=125)
    if call.texts("gpus"):
        raise Failure(
            f"{call.path}: could not select device driver with capabilities: [[gpu]]", code=125
        )
    if call.on("use-api-socket"):
        call.session.warn("WARNING: --use-api-socket gives the container control of the daemon")
    if call.changed("memory-swappiness") and not -1 <= call.number("memory-swappiness") <= 100:
        value = call.number("memory-swappiness")
        raise Failure(f"invalid value: {value}. Valid memory swappiness range is 0-100", code=125)
    health = any(call.changed(f"health-{name}") for name in HEALTH_FLAGS)
    if call.on("no-healthcheck") and health:
        raise Failure("--no-healthcheck conflicts with --health-* options", code=125)


HEALTH_FLAGS = ("cmd", "interval", "timeout", "start-period", "start-interval", "retries")


def _config(call: Call, image: str, command: list[str]) -> Body:
    stdin, stdout, stderr = attached(call)
    exposed, _ = ports.published(call.texts("publish"))
    exposed |= ports.exposed(call.texts("expose"))
    _, anonymous = mounts.volumes(call.texts("volume"))
    body: Body = {
        "Hostname": call.text("hostname"),
        "Domainname": call.text("domainname"),
        "User": call.text("user"),
        "AttachStdin": stdin,
        "AttachStdout": stdout,
        "AttachStderr": stderr,
        "ExposedPorts": exposed,
        "Tty": call.on("tty"),
        "OpenStdin": call.on("interactive"),
        "StdinOnce": call.on("interactive") and stdin,
        "Env": _environment(call),
        "Cmd": command or None,
        "Image": image,
        "Volumes": anonymous,
        "WorkingDir": call.text("workdir"),
        "Entrypoint": _entrypoint(call),
        "Labels": labels(call.texts("label-file"), call.texts("label")),
    }
    if call.text("mac-address"):
        body["MacAddress"] = call.text("mac-address")
    if call.changed("stop-signal"):
        body["StopSignal"] = call.text("stop-signal")
    if call.changed("stop-timeout"):
        body["StopTimeout"] = call.number("stop-timeout")
    health = _health(call)
    if health:
        body["Healthcheck"] = health
    return body


def _environment(call: Call) -> list[str]:
    session: Session = call.session
    found = variables(call.texts("env-file"), call.texts("env"))
    names = {value.partition("=")[0] for value in found}
    from_settings = proxies(session.settings.table("proxies"), session.host)
    return found + [f"{k}={v}" for k, v in from_settings.items() if k not in names]


def _entrypoint(call: Call) -> list[str] | None:
    if not call.changed("entrypoint"):
        return None
    # An empty one resets the image's, which the API writes as one empty text.
    return [call.text("entrypoint")]


def _health(call: Call) -> Body:
    if call.on("no-healthcheck"):
        return {"Test": ["NONE"]}
    if not any(call.changed(f"health-{name}") for name in HEALTH_FLAGS):
        return {}
    for name in ("interval", "timeout", "start-period", "retries", "start-interval"):
        if call.number(f"health-{name}") < 0:
            raise Failure(f"--health-{name} cannot be negative", code=125)
    command = call.text("health-cmd")
    body: Body = {"Test": ["CMD-SHELL", command]} if command else {}
    for key, name in (
        ("Interval", "interval"),
        ("Timeout", "timeout"),
        ("StartPeriod", "start-period"),
        ("StartInterval", "start-interval"),
        ("Retries", "retries"),
    ):
        if call.number(f"health-{name}"):
            body[key] = call.number(f"health-{name}")
    return body


def _host_config(call: Call, mode: str) -> Body:
    binds, _ = mounts.volumes(call.texts("volume"))
    _, bindings = ports.published(call.texts("publish"))
    body: Body = {
        "Binds": binds or None,
        "ContainerIDFile": call.text("cidfile"),
        "LogConfig": {"Type": call.text("log-driver"), "Config": pairs(call.texts("log-opt"))},
        "NetworkMode": mode,
        "PortBindings": bindings,
        "RestartPolicy": restart_policy(call.text("restart")),
        "AutoRemove": call.on("rm"),
        "VolumeDriver": call.text("volume-driver"),
        "VolumesFrom": call.texts("volumes-from") or None,
        "ConsoleSize": _console_size(call),
        "CapAdd": call.texts("cap-add") or None,
        "CapDrop": call.texts("cap-drop") or None,
        "CgroupnsMode": call.text("cgroupns"),
        "Dns": call.texts("dns"),
        "DnsOptions": call.texts("dns-option"),
        "DnsSearch": call.texts("dns-search"),
        "ExtraHosts": call.texts("add-host") or None,
        "GroupAdd": call.texts("group-add") or None,
        "IpcMode": call.text("ipc"),
        "Cgroup": "",
        "Links": call.texts("link") or None,
        "OomScoreAdj": call.number("oom-score-adj"),
        "PidMode": call.text("pid"),
        "Privileged": call.on("privileged"),
        "PublishAllPorts": call.on("publish-all"),
        "ReadonlyRootfs": call.on("read-only"),
        "SecurityOpt": security_options(call.texts("security-opt")) or None,
        "UTSMode": call.text("uts"),
        "UsernsMode": call.text("userns"),
        "ShmSize": call.number("shm-size"),
        "Isolation": "",
        **_engine(call),
        **resources(call),
    }
    optional = {
        "Annotations": pairs(call.texts("annotation")),
        "Mounts": [mounts.mount(value) for value in call.texts("mount")] + _api_socket(call),
        "Sysctls": pairs(call.texts("sysctl")),
        "Tmpfs": mounts.tmpfs(call.texts("tmpfs")),
    }
    body |= {name: value for name, value in optional.items() if value}
    if call.changed("init"):
        body["Init"] = call.on("init")
    return body


def _api_socket(call: Call) -> list[Body]:
    if not call.on("use-api-socket"):
        return []
    path = call.session.host.removeprefix("unix://")
    return [{"Type": "bind", "Source": path, "Target": "/var/run/docker.sock"}]


def _console_size(call: Call) -> list[int]:
    from lading.cli.streams.terminal import window_size  # late, as `create -t` is rare

    return list(window_size() or (0, 0)) if call.on("tty") else [0, 0]


def _engine(call: Call) -> Body:
    """Lading's own choices, in places that any Docker client can write to as well."""
    isolation, runtime = call.text("isolation"), call.text("runtime")
    if isolation and runtime and isolation != runtime:
        raise Failure("conflicting options: --isolation and --runtime name two backends", code=125)
    options = pairs(call.texts("storage-opt"))
    if call.text("storage"):
        name, *more = call.text("storage").split(",")
        options |= {"driver": name, **pairs(more)}
    body: Body = {}
    if isolation or runtime:
        body["Runtime"] = isolation or runtime
    if options:
        body["StorageOpt"] = options
    return body


def resources(call: Call) -> Body:
    """Limits, which ``update`` sends too."""
    body: Body = {
        "CpuShares": call.number("cpu-shares"),
        "Memory": call.number("memory"),
        "NanoCpus": call.number("cpus"),
        "CgroupParent": call.text("cgroup-parent"),
        "BlkioWeight": call.number("blkio-weight"),
        "BlkioWeightDevice": call.texts("blkio-weight-device"),
        "BlkioDeviceReadBps": call.texts("device-read-bps"),
        "BlkioDeviceWriteBps": call.texts("device-write-bps"),
        "BlkioDeviceReadIOps": call.texts("device-read-iops"),
        "BlkioDeviceWriteIOps": call.texts("device-write-iops"),
        "CpuPeriod": call.number("cpu-period"),
        "CpuQuota": call.number("cpu-quota"),
        "CpuRealtimePeriod": call.number("cpu-rt-period"),
        "CpuRealtimeRuntime": call.number("cpu-rt-runtime"),
        "CpusetCpus": call.text("cpuset-cpus"),
        "CpusetMems": call.text("cpuset-mems"),
        "Devices": _devices(call),
        "DeviceCgroupRules": call.texts("device-cgroup-rule") or None,
        "DeviceRequests": None,
        "MemoryReservation": call.number("memory-reservation"),
        "MemorySwap": call.number("memory-swap"),
        "MemorySwappiness": call.number("memory-swappiness"),
        "OomKillDisable": call.on("oom-kill-disable"),
        "PidsLimit": call.number("pids-limit"),
        "Ulimits": _ulimits(call),
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }
    if call.number("kernel-memory"):
        body["KernelMemory"] = call.number("kernel-memory")
    return body


def _ulimits(call: Call) -> list[Any]:
    """The last of each name counts."""
    return list({limit["Name"]: limit for limit in call.value("ulimit")}.values())


def _devices(call: Call) -> list[dict[str, str]]:
    try:
        return [device(value) for value in call.texts("device")]
    except ValueError as error:
        raise Failure(str(error), code=125) from error


def restart_policy(text: str) -> Body:
    """``on-failure:3`` as the API's policy; raises Failure."""
    name, colon, count = text.partition(":")
    if not text:
        return {"Name": "no", "MaximumRetryCount": 0}
    if colon and not count.isdigit():
        raise Failure(
            "invalid restart policy format: maximum retry count must be an integer", code=125
        )
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def security_options(values: list[str]) -> list[str]:
    """Security options; a seccomp profile is a file here and sent as its content."""
    found = []
    for value in values:
        key, equals, path = value.partition("=")
        if not equals and value != "no-new-privileges":
            key, colon, path = value.partition(":")
            if not colon:
                raise Failure(f'invalid --security-opt: "{value}"', code=125)
        if key == "seccomp" and path not in ("unconfined", "builtin"):
            value = f"seccomp={_compact_json(path)}"
        found.append(value)
    return found


def _compact_json(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return json.dumps(json.load(file), separators=(",", ":"))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        message = f"opening seccomp profile ({path}) failed: open {path}: {reason}"
        raise Failure(message, code=125) from error
    except ValueError as error:
        message = f"compacting json for seccomp profile ({path}) failed: {error}"
        raise Failure(message, code=125) from error
