"""The command line of ``ladingd``: dockerd's options, as one more layer of the configuration."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lading import __version__
from lading.errors import Invalid

_TRUE = frozenset({"1", "t", "true", "yes"})
_FALSE = frozenset({"0", "f", "false", "no"})
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@dataclass(frozen=True, slots=True)
class Flags:
    """What was given: the keys of the configuration in kebab-case, and the file to read."""

    values: dict[str, Any]
    config_file: Path | None


def parse(arguments: Sequence[str] | None = None) -> Flags:
    """Read the command line; ends the process with status 2 and a usage line for mistakes."""
    given = vars(_parser().parse_args(arguments))
    config_file = given.pop("config_file", None)
    # Accepted for the sake of dockerd's unit files: containers always survive the daemon here.
    given.pop("live_restore", None)
    values = {name.replace("_", "-"): value for name, value in given.items()}
    for key in ("default-ulimits", "log-opts"):
        if key in values:
            values[key] = dict(values[key])
    return Flags(values, None if config_file is None else Path(config_file))


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise argparse.ArgumentTypeError(f'"{text}" is neither true nor false')


def _size(text: str) -> int:
    lowered = text.lower().removesuffix("b").removesuffix("i")
    number = lowered.rstrip("kmg")
    try:
        return int(float(number) * _UNITS[lowered[len(number) :]])
    except (ValueError, KeyError):
        raise argparse.ArgumentTypeError(f'"{text}" is no size') from None


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f'"{text}" is not of the form key=value')
    return key, value


def _pool(text: str) -> dict[str, Any]:
    """``base=172.30.0.0/16,size=24``."""
    found = dict(_pair(part) for part in text.split(","))
    try:
        return {"base": found["base"], "size": int(found["size"])}
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f'"{text}" is not base=CIDR,size=BITS') from None


class _Lines(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=100)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "ladingd",
        description="The daemon of the container engine Lading.",
        argument_default=argparse.SUPPRESS,
        formatter_class=_Lines,
        allow_abbrev=False,
    )
    parser.add_argument("-v", "--version", action="version", version=f"ladingd {__version__}")
    parser.add_argument("--config-file", metavar="FILE", help="configuration of the administrator")
    _listening(parser)
    _places(parser)
    _network(parser)
    _containers(parser)
    _registries(parser)
    return parser


def _flag(parser: argparse.ArgumentParser, *names: str, help: str) -> None:
    """A switch in the manner of Go's: ``--icc``, ``--icc=false``."""
    parser.add_argument(*names, nargs="?", const=True, type=_boolean, metavar="BOOL", help=help)


def _many(parser: argparse.ArgumentParser, *names: str, dest: str, **options: Any) -> None:
    parser.add_argument(*names, action="append", dest=dest, **options)


def _listening(parser: argparse.ArgumentParser) -> None:
    _many(parser, "-H", "--host", dest="hosts", help="where to listen: unix://, tcp:// or fd://")
    parser.add_argument("-G", "--group", help="group of the unix socket")
    _flag(parser, "--tls", help="use TLS on tcp://")
    _flag(parser, "--tlsverify", help="use TLS and ask clients for a certificate")
    parser.add_argument("--tlscacert", metavar="FILE", help="authority of clients' certificates")
    parser.add_argument("--tlscert", metavar="FILE", help="certificate of this daemon")
    parser.add_argument("--tlskey", metavar="FILE", help="key of the certificate")
    _flag(parser, "--insecure-tcp", help="allow tcp:// without TLS: whoever connects is root")
    _flag(parser, "-D", "--debug", help="log more")
    parser.add_argument(
        "-l",
        "--log-level",
        choices=["debug", "info", "warn", "error", "fatal"],
        help="least severe level that is logged",
    )


def _places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-root", "-g", "--graph", metavar="DIR", help="persistent state")
    parser.add_argument("--exec-root", metavar="DIR", help="state of running containers")
    parser.add_argument("-p", "--pidfile", metavar="FILE", help="where to write the process id")
    parser.add_argument("-s", "--storage-driver", metavar="NAME", help="default filesystem backend")
    _many(parser, "--storage-opt", dest="storage_opts", help="option of the filesystem backend")
    parser.add_argument(
        "--default-runtime", "--isolation", metavar="NAME", help="default isolation backend"
    )
    _many(parser, "--extension", dest="extensions", help="extension to load")
    parser.add_argument("--shutdown-timeout", type=int, metavar="SECONDS")
    _flag(parser, "--live-restore", help="accepted: containers always survive the daemon")


def _network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-b", "--bridge", metavar="NAME", help="bridge of the default network")
    parser.add_argument("--bip", metavar="CIDR", help="address of the bridge")
    parser.add_argument("--fixed-cidr", metavar="CIDR", help="addresses of containers")
    _many(parser, "--default-address-pool", dest="default_address_pools", type=_pool)
    parser.add_argument("--ip", metavar="ADDRESS", help="default address to publish ports on")
    parser.add_argument("--mtu", type=int)
    parser.add_argument("--host-gateway-ip", metavar="ADDRESS", help='what "host-gateway" means')
    _many(parser, "--dns", dest="dns", metavar="ADDRESS")
    _many(parser, "--dns-search", dest="dns_search", metavar="DOMAIN")
    _many(parser, "--dns-opt", dest="dns_opts", metavar="OPTION")
    _flag(parser, "--icc", help="containers of the default network reach each other")
    _flag(parser, "--iptables", help="set up address translation and published ports")
    _flag(parser, "--ip-forward", help="turn forwarding on")
    _flag(parser, "--ip-masq", help="translate addresses of containers")
    _flag(parser, "--userland-proxy", help="carry to published ports what no rule leads there")


def _containers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--userns-remap", metavar="USER[:GROUP]", help="map users of containers")
    parser.add_argument("--cgroup-parent", metavar="CGROUP")
    parser.add_argument("--default-shm-size", type=_size, metavar="SIZE")
    _many(parser, "--default-ulimit", dest="default_ulimits", type=_pair, metavar="NAME=SOFT:HARD")
    parser.add_argument("--default-ipc-mode", choices=["private", "shareable"])
    parser.add_argument("--default-cgroupns-mode", choices=["private", "host"])
    parser.add_argument("--seccomp-profile", metavar="FILE", help='or "unconfined", "builtin"')
    _flag(parser, "--no-new-privileges", help="for all containers")
    _flag(parser, "--init", help="run an init in all containers")
    _many(parser, "--label", dest="labels", metavar="KEY=VALUE", help="label of the daemon")
    parser.add_argument("--log-driver", metavar="NAME", help="default log driver")
    _many(parser, "--log-opt", dest="log_opts", type=_pair, metavar="KEY=VALUE")


def _registries(parser: argparse.ArgumentParser) -> None:
    _many(parser, "--registry-mirror", dest="registry_mirrors", metavar="URL")
    _many(parser, "--insecure-registry", dest="insecure_registries", metavar="REGISTRY")
    parser.add_argument("--max-concurrent-downloads", type=int, metavar="N")
    parser.add_argument("--max-concurrent-uploads", type=int, metavar="N")


def check_hosts(hosts: Sequence[str], *, tls: bool, insecure_tcp: bool) -> None:
    """Raises Invalid for a TCP address that would give root to everyone who can connect."""
    for host in hosts:
        if host.startswith("tcp://") and not tls and not insecure_tcp:
            raise Invalid(
                f'listen on "{host}": TCP without TLS would make everyone root who can connect',
                hint="give --tlsverify with certificates, or --insecure-tcp if that is wanted",
            )
