"""A part of the tests in a guest kernel with cgroup v2 (Debian's user-mode-linux).

The guest is a plain process whose root is this host's, read and written through hostfs; what the
tests make lies on the guest's own tmpfs.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from tests.guest.machines import UML, uml

BRIDGE = "plugins/network_bridge/tests/test_conformance.py::TestBridge"

#: Needs project quotas, which few kernels for virtual machines have.
QUOTAS = "plugins/fs_overlay/tests/test_overlay"

LXC = "plugins/isolation_lxc/tests/test_lxc_conformance.py::TestLxc"

#: What depends on the cgroup version or on the kernel's age; the rest would only repeat itself.
CHOSEN = [
    "plugins/isolation_native/tests/test_native_conformance.py",
    f"{LXC}::test_created_init_waits",
    f"{LXC}::test_kill_a_paused_container",
    f"{LXC}::test_delete_leaves_nothing",
    f"{LXC}::test_device_rules",
    f"{LXC}::test_exec_is_in_the_cgroup",
    f"{LXC}::test_out_of_memory",
    f"{LXC}::test_readings_after_the_end",
    f"{LXC}::test_user_namespace",
    # Where crun sees the host's own hierarchy.
    "tests/matrix/test_differential.py::test_backends_agree[plain]",
    "tests/matrix/test_differential.py::test_backends_agree[limits]",
    "tests/matrix/test_scenarios.py::test_limits[crun-overlay]",
    "tests/matrix/test_scenarios.py::test_exec[crun-overlay]",
    "tests/linux/test_cgroup_oom.py",
    "tests/e2e/test_limits.py",
    "tests/e2e/test_run.py::test_output_and_exit_code",
    "tests/e2e/test_run.py::test_pause_stops_and_unpause_goes_on",
    "tests/e2e/test_run.py::test_rename_and_update",
    "tests/e2e/test_run.py::test_exec",
    "tests/e2e/test_network.py::test_published_port_from_localhost_and_over_the_bridge",
    # A kernel without nf_tables: the same rules through iptables.
    f"{BRIDGE}::test_published_ports_are_reached_from_everywhere",
    f"{BRIDGE}::test_published_on_one_address_only",
    f"{BRIDGE}::test_published_in_ipv6",
    f"{BRIDGE}::test_unpublished_is_closed",
    f"{BRIDGE}::test_nobody_outside_reaches_what_is_not_published",
    f"{BRIDGE}::test_an_internal_network_has_no_way_out",
    f"{BRIDGE}::test_endpoints_of_two_networks_do_not",
    f"{BRIDGE}::test_recovery_keeps_what_runs",
    "tests/filesystem/test_limits.py::test_a_size_limit_holds[overlay-xfs-prjquota]",
    f"{QUOTAS}_conformance.py::TestOverlayLimits",
    f"{QUOTAS}.py::test_ext4_with_project_quotas_is_refused_since_root_passes_its_limits",
]


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.skipif(UML is None, reason="user-mode-linux is not installed")
def test_cgroup_v2_in_a_guest_kernel() -> None:
    folder = Path(tempfile.mkdtemp(prefix="lading-guest-", dir="/var/tmp"))
    try:
        arguments = " ".join(f"'{name}'" for name in CHOSEN)
        code, output = uml(
            "LADING_CLIENTS=lading LADING_MATRIX_FILESYSTEMS=overlay "
            f"PYTHONDONTWRITEBYTECODE=1 {sys.executable} -m pytest -q"
            f" -p no:cacheprovider -o lading_network_namespace=false --timeout=300"
            f" --junitxml={folder}/report.xml {arguments}",
            folder,
        )
        assert code == 0, output
        suite = ET.parse(folder / "report.xml").getroot().find("testsuite")
        assert suite is not None
        assert int(suite.attrib["tests"]) - int(suite.attrib["skipped"]) >= len(CHOSEN)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.skipif(UML is None, reason="user-mode-linux is not installed")
def test_the_guest_has_only_cgroup_v2() -> None:
    folder = Path(tempfile.mkdtemp(prefix="lading-guest-", dir="/var/tmp"))
    try:
        rows = "cut -d' ' -f3 /proc/mounts | grep cgroup; cat /sys/fs/cgroup/cgroup.controllers"
        _, output = uml(rows, folder)
        kind, controllers = output.splitlines()
        assert kind == "cgroup2"
        assert {"cpu", "io", "memory", "pids"} <= set(controllers.split())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        assert not os.path.exists(folder)
