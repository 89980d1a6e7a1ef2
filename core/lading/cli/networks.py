"""Commands about networks."""

from __future__ import annotations

from typing import Any

from lading.cli.command import NONE, at_least, command, exactly
from lading.cli.containers.lifecycle import each
from lading.cli.creation.environment import labels
from lading.cli.creation.values import link, pairs
from lading.cli.errors import DaemonError, Failure
from lading.cli.flags import Call, number, switch, text, texts
from lading.cli.output.table import Columns, api_filters, show_list
from lading.cli.output.units import go_time, short_id

TABLE = ("ID", "Name", "Driver", "Scope")


def columns(*, truncate: bool) -> Columns:
    """The fields of a network."""
    return Columns(
        "networkContext",
        {
            "CreatedAt": ("CREATED AT", lambda n: go_time(n.get("Created", ""))),
            "Driver": ("DRIVER", lambda n: n["Driver"]),
            "ID": ("NETWORK ID", lambda n: short_id(n["Id"]) if truncate else n["Id"]),
            "IPv4": ("IPV4", lambda n: _word(n.get("EnableIPv4", True))),
            "IPv6": ("IPV6", lambda n: _word(n.get("EnableIPv6"))),
            "Internal": ("INTERNAL", lambda n: _word(n.get("Internal"))),
            "Labels": ("LABELS", lambda n: ",".join(f"{k}={v}" for k, v in _labels(n).items())),
            "Name": ("NAME", lambda n: n["Name"]),
            "Scope": ("SCOPE", lambda n: n["Scope"]),
        },
        {"Label": ("", lambda n: lambda name: _labels(n).get(name, ""))},
    )


def _word(value: Any) -> str:
    return "true" if value else "false"


def _labels(network: dict[str, Any]) -> dict[str, str]:
    return network.get("Labels") or {}


@command(
    "List networks",
    usage="[OPTIONS]",
    arguments=NONE,
    flags=(
        texts("filter", "f", "Only those that meet a condition (name=value)", kind="filter"),
        text("format", "", "Go template, 'table', 'table TEMPLATE' or 'json'"),
        switch("no-trunc", "", "Do not shorten anything"),
        switch("quiet", "q", "Ids only"),
    ),
)
def ls(call: Call) -> None:
    """List networks by name."""
    found = call.session.get("/networks", filters=api_filters(call.texts("filter")))
    layout = call.text("format")
    if not layout and not call.on("quiet"):
        layout = call.session.settings.text("networksFormat")
    show_list(
        columns(truncate=not call.on("no-trunc")),
        sorted(found, key=lambda network: network["Name"]),
        layout=layout,
        table=TABLE,
        quiet="ID" if call.on("quiet") else "",
    )


@command(
    "Make a network",
    usage="[OPTIONS] NETWORK",
    arguments=exactly(1),
    flags=(
        switch("attachable", "", "Containers may be connected by hand"),
        texts("aux-address", "", "Address that the driver uses, NAME=ADDRESS", kind="map"),
        switch("config-only", "", "Only a configuration for others"),
        text("config-from", "", "Network whose configuration is taken"),
        text("driver", "d", "Driver of the network", default="bridge"),
        texts("gateway", "", "Gateway of the subnet", kind="strings"),
        switch("ingress", "", "Routing mesh of a swarm", hidden=True),
        switch("internal", "", "Without a way out"),
        texts("ip-range", "", "Range that containers' addresses come from", kind="strings"),
        text("ipam-driver", "", "Driver of the address management", default="default"),
        texts("ipam-opt", "", "Option of that driver (key=value)", kind="map"),
        switch("ipv4", "", "With IPv4", default=True),
        switch("ipv6", "", "With IPv6"),
        texts("label", "", "Label (key=value)"),
        texts("opt", "o", "Option of the driver (key=value)", kind="map"),
        text("scope", "", "Scope of the network"),
        texts("subnet", "", "Subnet, ADDRESS/BITS", kind="strings"),
    ),
)
def create(call: Call) -> None:
    """Create a network and print its id."""
    body: dict[str, Any] = {
        "Name": call.args[0],
        "CheckDuplicate": True,
        "Driver": call.text("driver"),
        "Scope": call.text("scope"),
        "Options": pairs(call.texts("opt")),
        "IPAM": {
            "Driver": call.text("ipam-driver"),
            "Options": pairs(call.texts("ipam-opt")),
            "Config": _ipam(call),
        },
        "Internal": call.on("internal"),
        "Attachable": call.on("attachable"),
        "Ingress": call.on("ingress"),
        "ConfigOnly": call.on("config-only"),
        "Labels": labels([], call.texts("label")),
    }
    if call.changed("ipv4"):
        body["EnableIPv4"] = call.on("ipv4")
    if call.changed("ipv6"):
        body["EnableIPv6"] = call.on("ipv6")
    if call.text("config-from"):
        body["ConfigFrom"] = {"Network": call.text("config-from")}
    answer = call.session.post("/networks/create", body)
    if answer.get("Warning"):
        call.session.warn(f"WARNING: {answer['Warning']}")
    call.session.print(answer["Id"])


def _ipam(call: Call) -> list[dict[str, Any]]:
    """Subnets, and to each the ranges, gateways and addresses that lie in it."""
    import ipaddress  # late: few networks are made with addresses

    try:
        pools = {
            ipaddress.ip_network(subnet, strict=False): {"Subnet": subnet}
            for subnet in _split(call, "subnet")
        }

        def pool_of(address: str, what: str) -> dict[str, Any]:
            wanted = ipaddress.ip_address(address.partition("/")[0])
            for network, pool in pools.items():
                if wanted in network:
                    return pool
            raise Failure(f"no matching subnet for {what} {address}")

        for value in _split(call, "ip-range"):
            pool_of(value, "range")["IPRange"] = value
        for value in _split(call, "gateway"):
            pool_of(value, "gateway")["Gateway"] = value
        for name, value in pairs(call.texts("aux-address")).items():
            pool_of(value, "aux-address").setdefault("AuxiliaryAddresses", {})[name] = value
    except ValueError as error:
        raise Failure(f"invalid subnet or address: {error}") from error
    return list(pools.values())


def _split(call: Call, flag: str) -> list[str]:
    return [part for value in call.texts(flag) for part in value.split(",")]


@command(
    "Remove networks",
    usage="NETWORK [NETWORK...]",
    arguments=at_least(1),
    flags=(switch("force", "f", "Do not mind one that does not exist"),),
    completes="networks",
)
def rm(call: Call) -> int:
    """Remove networks."""

    def act(name: str) -> str | None:
        try:
            call.session.delete(f"/networks/{name}")
        except DaemonError as error:
            if call.on("force") and error.status == 404:
                return None
            raise
        return name

    return each(call.session, call.args, act)


@command(
    "Connect a container to a network",
    usage="[OPTIONS] NETWORK CONTAINER",
    arguments=exactly(2),
    flags=(
        texts("alias", "", "Name in the network", kind="strings"),
        texts("driver-opt", "", "Option of the driver (key=value)", kind="strings"),
        number("gw-priority", "", "Priority of this network's gateway"),
        text("ip", "", "IPv4 address"),
        text("ip6", "", "IPv6 address"),
        texts("link", "", "Link to another container", parse=link),
        texts("link-local-ip", "", "Link-local address", kind="strings"),
    ),
    completes="networks",
)
def connect(call: Call) -> None:
    """Connect."""
    network, container = call.args
    addresses = {
        "IPv4Address": call.text("ip"),
        "IPv6Address": call.text("ip6"),
        "LinkLocalIPs": call.texts("link-local-ip"),
    }
    endpoint: dict[str, Any] = {
        "IPAMConfig": {name: value for name, value in addresses.items() if value},
        "Links": call.texts("link") or None,
        "Aliases": call.texts("alias") or None,
        "DriverOpts": pairs(call.texts("driver-opt")),
    }
    if call.changed("gw-priority"):
        endpoint["GwPriority"] = call.number("gw-priority")
    body = {"Container": container, "EndpointConfig": endpoint}
    call.session.post(f"/networks/{network}/connect", body)


@command(
    "Take a container off a network",
    usage="[OPTIONS] NETWORK CONTAINER",
    arguments=exactly(2),
    flags=(switch("force", "f", "Even when the container does not know of it"),),
    completes="networks",
)
def disconnect(call: Call) -> None:
    """Disconnect."""
    network, container = call.args
    body = {"Container": container, "Force": call.on("force")}
    call.session.post(f"/networks/{network}/disconnect", body)
