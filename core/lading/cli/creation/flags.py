"""The flags of ``run`` and ``create``, by subject."""

from __future__ import annotations

from lading.cli.creation.environment import check_variable
from lading.cli.creation.values import (
    attachable,
    cpus,
    device_rule,
    extra_host,
    key_value,
    link,
    log_option,
    rate_in_bytes,
    rate_in_operations,
    ulimit,
    weighted_device,
)
from lading.cli.flags import Flag, number, switch, text, texts
from lading.cli.output.units import duration_in_nanoseconds, size_in_bytes


def size(long: str, short: str, help: str, **more: object) -> Flag:
    """A flag with a size such as ``512m``."""
    return text(long, short, help, kind="bytes", default=0, parse=size_in_bytes, **more)


def duration(long: str, help: str) -> Flag:
    """A flag with a duration such as ``30s``."""
    return text(long, "", help, kind="duration", default=0, parse=duration_in_nanoseconds)


def memory_with_swap(value: str) -> int:
    """A size, or -1 for no limit."""
    return -1 if value == "-1" else size_in_bytes(value)


STREAMS = (
    texts("attach", "a", "Connect to stdin, stdout or stderr", parse=attachable),
    switch("detach", "d", "Run in the background and print the container's id"),
    text("detach-keys", "", "Keys that disconnect, instead of ctrl-p,ctrl-q"),
    switch("interactive", "i", "Keep stdin open"),
    switch("sig-proxy", "", "Pass signals on to the process", default=True),
    switch("tty", "t", "Give the process a terminal"),
)
IDENTITY = (
    texts("annotation", "", "Annotation for the runtime (key=value)", kind="map", parse=key_value),
    text("cidfile", "", "Write the container's id to this file"),
    text("domainname", "", "Domain name of the container"),
    text("hostname", "h", "Host name of the container"),
    texts("label", "l", "Label (key=value)"),
    texts("label-file", "", "Read labels from a file, one a line"),
    text("name", "", "Name of the container"),
    text("platform", "", "Platform of the image, os[/arch[/variant]]"),
    text("pull", "", 'When to pull the image: "always", "missing" or "never"', default="missing"),
    switch("quiet", "q", "Do not show the progress of a pull"),
    text("restart", "", "When to start it again: no, on-failure[:N], always, unless-stopped"),
    switch("rm", "", "Remove the container when it has ended"),
    switch("disable-content-trust", "", "Accepted; images are not signed", default=True),
)
PROCESS = (
    text("entrypoint", "", "Program to run instead of the image's ENTRYPOINT"),
    texts(
        "env",
        "e",
        "Environment variable, NAME=VALUE, or NAME for this one's value",
        parse=check_variable,
    ),
    texts("env-file", "", "Read environment variables from a file"),
    texts("group-add", "", "Additional group"),
    switch("init", "", "Run a small init that reaps processes"),
    text("stop-signal", "", "Signal that asks the process to end"),
    number("stop-timeout", "", "Seconds until a stop becomes a kill"),
    text("user", "u", "User and group, name|uid[:group|gid]"),
    text("workdir", "w", "Working directory"),
    texts("ulimit", "", "Limit of the process, name=soft[:hard]", kind="ulimit", parse=ulimit),
    number("oom-score-adj", "", "How readily the kernel kills it when memory is short"),
)
HEALTH = (
    text("health-cmd", "", "Command that tells whether it is healthy"),
    duration("health-interval", "Time between checks"),
    number("health-retries", "", "Failures in a row until it is unhealthy"),
    duration("health-start-interval", "Time between checks while it starts"),
    duration("health-start-period", "Time in which failures do not count"),
    duration("health-timeout", "Time that one check may take"),
    switch("no-healthcheck", "", "No check, not even the image's"),
)
LIMITS = (
    number("blkio-weight", "", "Share of block I/O, 10 to 1000, or 0"),
    number("cpu-count", "", "Windows only", hidden=True),
    number("cpu-percent", "", "Windows only", hidden=True),
    number("cpu-period", "", "Period of the CPU quota, in microseconds"),
    number("cpu-quota", "", "CPU time in each period, in microseconds"),
    number("cpu-rt-period", "", "Period of real-time scheduling, in microseconds"),
    number("cpu-rt-runtime", "", "Real-time share of each period, in microseconds"),
    number("cpu-shares", "c", "Share of CPU time against others"),
    text("cpus", "", "Number of CPUs, such as 1.5", kind="decimal", default=0, parse=cpus),
    text("cpuset-cpus", "", "CPUs it may run on (0-3, 0,1)", aliases=("cpuset",)),
    text("cpuset-mems", "", "Memory nodes it may use (0-3, 0,1)"),
    size("kernel-memory", "", "Limit of kernel memory", hidden=True),
    size("memory", "m", "Limit of memory"),
    size("memory-reservation", "", "Memory that is kept for it"),
    text(
        "memory-swap",
        "",
        "Limit of memory and swap together, -1 for none",
        kind="bytes",
        default=0,
        parse=memory_with_swap,
    ),
    number("memory-swappiness", "", "Readiness to swap, 0 to 100", default=-1),
    switch("oom-kill-disable", "", "Do not kill it when memory is short"),
    number("pids-limit", "", "Limit of processes, -1 for none"),
    size("shm-size", "", "Size of /dev/shm"),
    size("io-maxbandwidth", "", "Windows only", hidden=True),
    number("io-maxiops", "", "Windows only", hidden=True),
)
DEVICES = (
    texts("blkio-weight-device", "", "Share of a device's I/O, PATH:WEIGHT", parse=weighted_device),
    texts("device", "", "Device of the host, PATH[:INSIDE[:rwm]]"),
    texts("device-cgroup-rule", "", "Rule for the devices' cgroup", parse=device_rule),
    texts("device-read-bps", "", "Limit of bytes read a second, PATH:RATE", parse=rate_in_bytes),
    texts("device-read-iops", "", "Limit of reads a second, PATH:RATE", parse=rate_in_operations),
    texts(
        "device-write-bps", "", "Limit of bytes written a second, PATH:RATE", parse=rate_in_bytes
    ),
    texts("device-write-iops", "", "Limit of writes a second, PATH:RATE", parse=rate_in_operations),
    texts("gpus", "", "GPUs of the host", kind="gpu-request"),
)
FILES = (
    texts("mount", "", "Mount, type=TYPE,source=PATH,target=PATH[,...]", kind="mount"),
    switch("read-only", "", "The root file system cannot be written"),
    switch("rootfs", "", "The argument is a directory of the host, DIR[:ro|:O], not an image"),
    text("storage", "", "File system backend, NAME[,option=value]"),
    texts("storage-opt", "", "Option of the file system backend (key=value)", parse=key_value),
    texts("tmpfs", "", "Mount a tmpfs, PATH[:options]"),
    switch("use-api-socket", "", "Mount the API's socket"),
    texts("volume", "v", "Mount a volume or a directory, [SOURCE:]TARGET[:options]"),
    text("volume-driver", "", "Driver of the volumes that are made"),
    texts("volumes-from", "", "Mount the volumes of another container"),
)
NETWORK = (
    texts("add-host", "", "Line for /etc/hosts, NAME:ADDRESS", parse=extra_host),
    texts("dns", "", "Name server"),
    texts("dns-option", "", "Option of the resolver", aliases=("dns-opt",)),
    texts("dns-search", "", "Domain to search"),
    texts("expose", "", "Port that the container serves, PORT[-PORT][/PROTO]"),
    text("ip", "", "IPv4 address"),
    text("ip6", "", "IPv6 address"),
    texts("link", "", "Link to another container", parse=link),
    texts("link-local-ip", "", "Link-local address"),
    text("mac-address", "", "MAC address"),
    texts(
        "network",
        "",
        "Network, or bridge, none, host, container:NAME, ns:PATH",
        kind="network",
        aliases=("net",),
    ),
    texts("network-alias", "", "Name in the network", aliases=("net-alias",)),
    texts("publish", "p", "Publish a port, [[ADDRESS:][HOSTPORT]:]PORT[/PROTO]"),
    switch("publish-all", "P", "Publish all exposed ports at free ports of the host"),
)
SECURITY = (
    texts("cap-add", "", "Capability to add"),
    texts("cap-drop", "", "Capability to take away"),
    text("cgroup-parent", "", "Cgroup above the container's"),
    text("cgroupns", "", "Cgroup namespace: host or private"),
    text("ipc", "", "IPC namespace: private, shareable, host, none, container:NAME"),
    text("pid", "", "PID namespace: host or container:NAME"),
    switch("privileged", "", "All capabilities and devices, no confinement"),
    texts("security-opt", "", "Option of a security mechanism"),
    texts(
        "sysctl", "", "Kernel parameter of its namespaces (key=value)", kind="map", parse=key_value
    ),
    text("userns", "", "User namespace: host"),
    text("uts", "", "UTS namespace: host"),
)
ENGINE = (
    texts("hook", "", "Program to run at a point of its life, STAGE=COMMAND or STAGE=JSON"),
    text("isolation", "", "Isolation backend"),
    text("log-driver", "", "Logging driver"),
    texts("log-opt", "", "Option of the logging driver (key=value)", parse=log_option),
    text("runtime", "", "Runtime; the same as --isolation for Docker's clients"),
)
CREATE = (
    *(flag for flag in STREAMS if flag.long in ("attach", "interactive", "tty")),
    *IDENTITY,
    *PROCESS,
    *HEALTH,
    *LIMITS,
    *DEVICES,
    *FILES,
    *NETWORK,
    *SECURITY,
    *ENGINE,
)
RUN = (
    *(flag for flag in STREAMS if flag.long not in ("attach", "interactive", "tty")),
    *CREATE,
)
