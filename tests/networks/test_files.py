"""The contents of hosts and resolv.conf, and the variables of links."""

from __future__ import annotations

from pathlib import Path

import pytest

from lading.errors import Invalid
from lading.model.docker import ContainerConfig, Empty
from lading.networks import files
from lading.networks.files import Resolver
from lading.networks.records import Link


def test_resolver_of_the_host(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(
        "# comment\nnameserver 127.0.0.1\nnameserver 10.0.0.53\nnameserver ::1\n"
        "search a.test b.test\noptions ndots:2 rotate\nnameserver\n"
    )
    found = files.host_resolver(path, tmp_path / "none")
    assert found == Resolver(["10.0.0.53"], ["a.test", "b.test"], ["ndots:2", "rotate"])
    assert found.render() == (
        "nameserver 10.0.0.53\nsearch a.test b.test\noptions ndots:2 rotate\n"
    )


def test_only_loopback_servers_means_public_ones(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.1\n")
    assert files.host_resolver(path, tmp_path / "none").servers == files.PUBLIC_SERVERS
    assert files.host_resolver(tmp_path / "none").servers == files.PUBLIC_SERVERS


def test_the_servers_behind_the_stub_are_used(tmp_path: Path) -> None:
    path, resolved = tmp_path / "resolv.conf", tmp_path / "resolved"
    path.write_text("nameserver 127.0.0.53\n")
    resolved.write_text("nameserver 10.0.0.1\n")
    assert files.host_resolver(path, resolved).servers == ["10.0.0.1"]


def test_a_search_of_one_dot_is_none() -> None:
    assert Resolver(["10.0.0.1"], ["."]).render() == "nameserver 10.0.0.1\n"


def test_hosts_have_the_usual_lines_first() -> None:
    text = files.render_hosts([("10.0.0.2", "web")])
    assert text.startswith("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost")
    assert text.endswith("\n10.0.0.2\tweb\n")


def test_hosts_of_the_host_are_kept() -> None:
    assert files.render_hosts([("10.0.0.2", "x")], "1.2.3.4 y") == "1.2.3.4 y\n10.0.0.2\tx\n"


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("far:10.9.8.7", ("10.9.8.7", "far")),
        ("far=10.9.8.7", ("10.9.8.7", "far")),
        ("six:fd00::5", ("fd00::5", "six")),
        ("six=[fd00::5]", ("fd00::5", "six")),
        ("host:host-gateway", ("172.17.0.1", "host")),
    ],
)
def test_extra_hosts(row: str, found: tuple[str, str]) -> None:
    assert files.extra_hosts([row], "172.17.0.1") == [found]


@pytest.mark.parametrize("row", ["far", "far:ten", ":10.0.0.1"])
def test_wrong_extra_hosts_are_named(row: str) -> None:
    with pytest.raises(Invalid, match=row):
        files.extra_hosts([row], "172.17.0.1")


def test_host_gateway_needs_a_gateway() -> None:
    with pytest.raises(Invalid, match="host-gateway"):
        files.extra_hosts(["h:host-gateway"], "")


def test_variables_of_a_link() -> None:
    config = ContainerConfig(
        exposed_ports={"6379/tcp": Empty(), "53/udp": Empty()},
        env=["PATH=/bin", "MODE=fast"],
    )
    found = files.link_variables("app", Link("c" * 64, "redis", "my-db", config), "10.0.0.5")
    assert found == [
        "MY_DB_NAME=/app/my-db",
        "MY_DB_PORT=udp://10.0.0.5:53",
        "MY_DB_PORT_53_UDP=udp://10.0.0.5:53",
        "MY_DB_PORT_53_UDP_ADDR=10.0.0.5",
        "MY_DB_PORT_53_UDP_PORT=53",
        "MY_DB_PORT_53_UDP_PROTO=udp",
        "MY_DB_PORT_6379_TCP=tcp://10.0.0.5:6379",
        "MY_DB_PORT_6379_TCP_ADDR=10.0.0.5",
        "MY_DB_PORT_6379_TCP_PORT=6379",
        "MY_DB_PORT_6379_TCP_PROTO=tcp",
        "MY_DB_ENV_MODE=fast",
    ]
