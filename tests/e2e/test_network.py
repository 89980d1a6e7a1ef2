"""Networks, names and published ports, on a daemon with a network namespace as its host."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.testing.daemon import Daemon, busybox_image
from lading.testing.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.root

#: The static busybox's own wget does not survive getaddrinfo without the C library's modules.
GET = r"get() { printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 $1 $2 | tail -n 1; }; "

PAGE = "mkdir -p /www; echo page > /www/index.html; exec httpd -f -p 80 -h /www"


def unique(prefix: str) -> str:
    return f"{prefix}{time.monotonic_ns() % 10**9}"


@pytest.fixture
def made(daemon: Daemon) -> Iterator[list[str]]:
    """Names of containers to remove at the end."""
    names: list[str] = []
    yield names
    if names:
        daemon.client("lading", "rm", "-f", *names, check=False)


def serve(daemon: Daemon, made: list[str], *flags: str, client: str = "lading") -> str:
    name = unique("web")
    made.append(name)
    daemon.client(client, "run", "-d", "--name", name, *flags, "busybox", "sh", "-c", PAGE)
    return name


def address(daemon: Daemon, name: str) -> str:
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return daemon.client("lading", "inspect", "-f", form, name).stdout.decode().strip()


def fetch(url: str) -> str:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_published_port_from_localhost_and_over_the_bridge(
    daemon: Daemon, client: str, made: list[str]
) -> None:
    port = free_port()
    name = serve(daemon, made, "-p", f"{port}:80", client=client)
    assert fetch(f"http://127.0.0.1:{port}/") == "page\n"
    assert fetch(f"http://{address(daemon, name)}/") == "page\n"
    shown = daemon.client(client, "port", name, "80").stdout.decode().splitlines()
    assert f"0.0.0.0:{port}" in shown


def test_published_port_from_another_host(daemon: Daemon, made: list[str]) -> None:
    port = free_port()
    serve(daemon, made, "-p", f"{port}:80")
    fetch(f"http://127.0.0.1:{port}/")
    with other_host() as (netns, host_address):
        script = f"{GET} get {host_address} {port}"
        command = ["ip", "netns", "exec", netns, "busybox", "sh", "-c", script]
        assert subprocess.run(command, capture_output=True, timeout=30).stdout == b"page\n"


class other_host:  # noqa: N801 - reads as a verb in "with other_host()"
    """A network namespace that plays another machine on a cable to this one."""

    def __enter__(self) -> tuple[str, str]:
        self.name = unique("ldh")
        self.end = self.name[:12] + "a"
        for line in (
            f"netns add {self.name}",
            f"link add {self.end} type veth peer name eth0 netns {self.name}",
            f"addr add 10.213.7.1/24 dev {self.end}",
            f"link set {self.end} up",
            f"-n {self.name} addr add 10.213.7.2/24 dev eth0",
            f"-n {self.name} link set eth0 up",
            f"-n {self.name} route add default via 10.213.7.1",
        ):
            subprocess.run(["ip", *line.split()], check=True)
        return self.name, "10.213.7.1"

    def __exit__(self, *_: object) -> None:
        subprocess.run(["ip", "netns", "delete", self.name], check=True)
        subprocess.run(["ip", "link", "delete", self.end], check=False, capture_output=True)


def test_another_container_reaches_a_published_port(daemon: Daemon, made: list[str]) -> None:
    port = free_port()
    serve(daemon, made, "-p", f"{port}:80")
    fetch(f"http://127.0.0.1:{port}/")
    script = f"gw=$(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p'); get $gw {port}"
    assert (
        daemon.client("lading", "run", "--rm", "busybox", "sh", "-c", GET + script).stdout
        == b"page\n"
    )


def test_a_port_in_use_is_said_and_nothing_stays(daemon: Daemon, client: str) -> None:
    name = unique("taken")
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        port = holder.getsockname()[1]
        flags = ["-d", "--name", name, "-p", f"{port}:80"]
        done = daemon.client(client, "run", *flags, "busybox", "sleep", "9", check=False)
        assert done.returncode == 125
        assert "already" in done.stderr.decode()
    daemon.client(client, "start", name)
    daemon.client(client, "rm", "-f", name)


def test_publish_all(daemon: Daemon, client: str, made: list[str]) -> None:
    name = serve(daemon, made, "-P", "--expose", "80", client=client)
    row = daemon.client(client, "port", name, "80/tcp").stdout.decode().splitlines()[0]
    assert fetch(f"http://127.0.0.1:{row.rpartition(':')[2]}/") == "page\n"


def test_names_on_a_network(daemon: Daemon, client: str, made: list[str]) -> None:
    network = unique("net")
    daemon.client(client, "network", "create", network)
    try:
        name = serve(daemon, made, "--net", network, "--network-alias", "alias", client=client)
        fetch(f"http://{address(daemon, name)}/")
        for host in (name, "alias"):
            flags = ["--rm", "--net", network, "busybox", "sh", "-c", f"{GET} get {host} 80"]
            assert daemon.client(client, "run", *flags).stdout == b"page\n"
        refused = daemon.client(client, "network", "rm", network, check=False)
        assert refused.returncode == 1
        assert "active endpoints" in refused.stderr.decode()
    finally:
        daemon.client("lading", "rm", "-f", *made)
        made.clear()
        daemon.client(client, "network", "rm", network)


def test_networks_are_apart(daemon: Daemon, made: list[str]) -> None:
    network = unique("apart")
    daemon.client("lading", "network", "create", network)
    try:
        inside = serve(daemon, made, "--net", network)
        there = address(daemon, inside)
        fetch(f"http://{there}/")
        flags = ["--rm", "busybox", "nc", "-w", "2", there, "80"]
        assert daemon.client("lading", "run", *flags, check=False).returncode == 1
    finally:
        daemon.client("lading", "rm", "-f", *made)
        made.clear()
        daemon.client("lading", "network", "rm", network)


def test_connect_and_disconnect_while_it_runs(daemon: Daemon, client: str, made: list[str]) -> None:
    network = unique("late")
    daemon.client(client, "network", "create", network)
    name = serve(daemon, made)
    try:
        daemon.client(client, "network", "connect", network, name)
        links = daemon.client(client, "exec", name, "ls", "/sys/class/net").stdout.split()
        assert links == [b"eth0", b"eth1", b"lo"]
        daemon.client(client, "network", "disconnect", network, name)
        links = daemon.client(client, "exec", name, "ls", "/sys/class/net").stdout.split()
        assert links == [b"eth0", b"lo"]
    finally:
        daemon.client(client, "network", "rm", network)


def test_fixed_address_and_mac(daemon: Daemon, client: str) -> None:
    network = unique("fix")
    daemon.client(client, "network", "create", "--subnet", "10.214.3.0/24", network)
    flags = ["--rm", "--net", network, "--ip", "10.214.3.77", "--mac-address", "02:11:22:33:44:55"]
    try:
        shown = daemon.client(client, "run", *flags, "busybox", "ip", "addr", "show", "eth0").stdout
        assert b"10.214.3.77/24" in shown
        assert b"02:11:22:33:44:55" in shown
    finally:
        daemon.client(client, "network", "rm", network)


def test_links(daemon: Daemon, client: str, made: list[str]) -> None:
    name = serve(daemon, made, "--expose", "80", client=client)
    fetch(f"http://{address(daemon, name)}/")
    script = "get db 80; echo $DB_PORT_80_TCP_PORT"
    flags = ["--rm", "--link", f"{name}:db", "busybox", "sh", "-c", GET + script]
    assert daemon.client(client, "run", *flags).stdout == b"page\n80\n"


def test_modes_host_and_none(daemon: Daemon, client: str) -> None:
    none = ["--rm", "--net", "none", "busybox", "ls", "/sys/class/net"]
    assert daemon.client(client, "run", *none).stdout == b"lo\n"
    host = ["--rm", "--net", "host", "busybox", "ip", "link", "show", daemon.bridge]
    assert daemon.bridge.encode() in daemon.client(client, "run", *host).stdout


def test_hosts_and_resolv_conf(daemon: Daemon, client: str) -> None:
    flags = ["--add-host", "far:10.9.8.7", "--dns", "10.1.1.1", "--dns-search", "example.test"]
    script = "cat /etc/hosts /etc/resolv.conf"
    shown = daemon.client(
        client, "run", "--rm", *flags, "busybox", "sh", "-c", script
    ).stdout.decode()
    assert "10.9.8.7\tfar" in shown
    assert "nameserver 10.1.1.1" in shown
    assert "search example.test" in shown


def test_inspect_says_what_is_there(daemon: Daemon, client: str, made: list[str]) -> None:
    port = free_port()
    name = serve(daemon, made, "-p", f"127.0.0.1:{port}:80", client=client)
    settings = json.loads(daemon.client(client, "inspect", name).stdout)[0]["NetworkSettings"]
    assert settings["Ports"]["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": str(port)}]
    assert settings["Networks"]["bridge"]["IPAddress"] == address(daemon, name)
    network = json.loads(daemon.client(client, "network", "inspect", "bridge").stdout)[0]
    assert name in {c["Name"] for c in network["Containers"].values()}


def test_published_port_over_ipv6(daemon: Daemon, client: str, made: list[str]) -> None:
    port = free_port()
    name = serve(daemon, made, "-p", f"{port}:80", client=client)
    for _ in range(2):
        assert fetch(f"http://[::1]:{port}/") == "page\n"
    assert fetch(f"http://127.0.0.1:{port}/") == "page\n"
    shown = daemon.client(client, "port", name, "80").stdout.decode().splitlines()
    assert [row.rpartition(":")[0].strip("[]") for row in shown] == ["0.0.0.0", "::"]
    form = "{{json .NetworkSettings.Ports}}"
    found = json.loads(daemon.client(client, "inspect", "-f", form, name).stdout)
    every = [{"HostIp": ip, "HostPort": str(port)} for ip in ("0.0.0.0", "::")]
    assert found == {"80/tcp": every}
    listed = daemon.client(
        client, "ps", "-f", f"name={name}", "--format", "{{.Ports}}"
    ).stdout.decode()
    assert f"0.0.0.0:{port}->80/tcp, " in listed
    assert f":::{port}->80/tcp" in listed.replace("[::]", "::")
    daemon.client(client, "restart", "-t", "0", name)
    assert fetch(f"http://[::1]:{port}/") == "page\n"


def test_ports_on_one_address_of_either_version(daemon: Daemon, made: list[str]) -> None:
    port = free_port()
    six = serve(daemon, made, "-p", f"[::1]:{port}:80")
    serve(daemon, made, "-p", f"127.0.0.1:{port}:80")
    for address in ("[::1]", "127.0.0.1"):
        assert fetch(f"http://{address}:{port}/") == "page\n"
    assert daemon.client("lading", "port", six).stdout.decode() == f"80/tcp -> [::1]:{port}\n"
    daemon.client("lading", "rm", "-f", six)
    assert fetch(f"http://127.0.0.1:{port}/") == "page\n"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("::1", port), 5)


def test_much_over_ipv6_in_both_directions_with_half_close(daemon: Daemon, made: list[str]) -> None:
    port, name = free_port(), unique("cat")
    made.append(name)
    script = "exec nc -ll -p 7 -e cat"
    daemon.client(
        "lading", "run", "-d", "--name", name, "-p", f"{port}:7", "busybox", "sh", "-c", script
    )
    sent = random.randbytes(8 << 20)
    with connected(port) as connection:
        writer = threading.Thread(target=lambda: finish(connection, sent))
        writer.start()
        found = b"".join(iter(lambda: connection.recv(1 << 20), b""))
        writer.join()
    assert found == sent


def finish(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def connected(port: int) -> socket.socket:
    """A connection that is answered: the program in the container takes a moment to listen."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        connection = socket.create_connection(("::1", port), 60)
        connection.sendall(b"")
        time.sleep(0.05)
        connection.setblocking(False)
        try:
            open_still = bool(connection.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            open_still = True
        except ConnectionResetError:
            open_still = False
        connection.settimeout(20)
        if open_still:
            return connection
        connection.close()
        assert time.monotonic() < give_up
        time.sleep(0.05)


#: An echo of datagrams, for busybox serves none.
ECHO = """
import socket
server = socket.socket(type=socket.SOCK_DGRAM)
server.bind(("", 53))
print(flush=True)
while True:
    server.sendto(*server.recvfrom(2000))
"""


def test_datagrams_over_ipv6(daemon: Daemon, made: list[str]) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        port = probe.getsockname()[1]
    name = serve(daemon, made, "-p", f"{port}:53/udp")
    pid = daemon.client("lading", "inspect", "-f", "{{.State.Pid}}", name).stdout.decode().strip()
    command = ["nsenter", "-t", pid, "-n", sys.executable, "-c", ECHO]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout
            server.stdout.readline()
            for text in (b"one", b"two"):
                with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asker:
                    asker.settimeout(60)
                    asker.connect(("::1", port))
                    for again in (b" first", b" second"):
                        asker.send(text + again)
                        assert asker.recv(100) == text + again
        finally:
            server.kill()


def test_a_port_over_ipv6_outlives_the_daemon(scratch_daemon: Daemon) -> None:
    port = free_port()
    serve(scratch_daemon, [], "-p", f"{port}:80")
    assert fetch(f"http://[::1]:{port}/") == "page\n"
    scratch_daemon.kill()
    assert fetch(f"http://[::1]:{port}/") == "page\n"
    scratch_daemon.start()
    assert fetch(f"http://[::1]:{port}/") == "page\n"


def test_a_relay_that_is_killed_is_replaced(daemon: Daemon, made: list[str]) -> None:
    port = free_port()
    name = serve(daemon, made, "-p", f"{port}:80")
    assert fetch(f"http://[::1]:{port}/") == "page\n"
    form = "{{.State.Pid}}"
    pid = daemon.client("lading", "inspect", "-f", form, name).stdout.decode().strip()
    monitor = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    children = Path(f"/proc/{monitor}/task/{monitor}/children").read_text().split()
    relays = [c for c in children if Path(f"/proc/{c}/comm").read_text() == "lading-relay\n"]
    assert len(relays) == 1
    os.kill(int(relays[0]), signal.SIGKILL)
    assert fetch(f"http://[::1]:{port}/") == "page\n"


def test_without_userland_proxy_there_is_ipv4_only() -> None:
    with Daemon("--userland-proxy=false") as alone:
        alone.client("lading", "import", "-", "busybox", input=busybox_image())
        port = free_port()
        name = serve(alone, [], "-p", f"{port}:80")
        assert fetch(f"http://127.0.0.1:{port}/") == "page\n"
        shown = alone.client("lading", "port", name).stdout.decode()
        assert shown == f"80/tcp -> 0.0.0.0:{port}\n"
        with pytest.raises(OSError):
            socket.create_connection(("::1", port), 5)
