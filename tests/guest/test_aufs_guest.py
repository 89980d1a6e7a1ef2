"""The AUFS backend on a kernel that has AUFS, which no distribution of today brings.

``LADING_AUFS_KERNEL=DIR``: where such a kernel's packages were unpacked (docs/plugins/aufs.md).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from tests.guest.machines import QEMU, qemu

KERNEL = os.environ.get("LADING_AUFS_KERNEL")


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(7300)
@pytest.mark.skipif(KERNEL is None, reason="no kernel with AUFS is named by LADING_AUFS_KERNEL")
@pytest.mark.skipif(QEMU is None, reason="qemu-system-x86_64 is not installed")
def test_aufs_in_a_guest_kernel() -> None:
    folder = Path(tempfile.mkdtemp(prefix="lading-guest-", dir="/var/tmp"))
    try:
        code, output = qemu(
            "grep -w aufs /proc/filesystems && LADING_START_SECONDS=300"
            f" PYTHONDONTWRITEBYTECODE=1 {sys.executable} -m pytest -q -p no:cacheprovider"
            " -o lading_network_namespace=false --timeout=1800"
            f" --junitxml={folder}/report.xml plugins/fs_aufs/tests;"
            " code=$?; uname -r; cat /sys/module/aufs/version; dmesg | grep -E 'BUG|Oops';"
            " exit $code",
            folder,
            Path(str(KERNEL)),
            seconds=7200,
        )
        assert code == 0, output
        assert "Oops" not in output
        suite = ET.parse(folder / "report.xml").getroot().find("testsuite")
        assert suite is not None
        assert int(suite.attrib["tests"]) - int(suite.attrib["skipped"]) >= 75
    finally:
        shutil.rmtree(folder, ignore_errors=True)
