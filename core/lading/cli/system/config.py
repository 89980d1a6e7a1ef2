"""``lading config show``: the configuration that a daemon started here has, and who set what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lading.cli.command import NONE, command
from lading.cli.flags import Call, switch, text
from lading.cli.output.table import aligned, render


@command(
    "Show the daemon's configuration and its sources",
    usage="[OPTIONS]",
    arguments=NONE,
    flags=(
        switch("all", "a", "Show the keys that no file sets too"),
        text("config-file", "", "Read this in place of the administrator's", kind="file"),
        text("format", "f", "'table', 'json', or a Go template"),
    ),
)
def show(call: Call) -> None:
    """Read all layers as the daemon does; its command line is not known here."""
    from lading import config  # late: only this command reads the daemon's configuration

    given = call.text("config-file")
    loaded = config.load({}, Path(given) if given else None)
    rows = [
        {"Key": key, "Value": value, "Source": loaded.origin.get(key, "default")}
        for key, value in _keys(loaded)
        if call.on("all") or key in loaded.origin
    ]
    layout = call.text("format")
    if layout in ("", "table"):
        cells = [["KEY", "VALUE", "SET BY"]]
        cells += [[r["Key"], json.dumps(r["Value"]), r["Source"]] for r in rows]
        call.session.out.write(aligned(cells))
    else:
        render(layout, rows)


def _keys(loaded: Any) -> list[tuple[str, Any]]:
    """Dotted keys with their values: those of ``origin``, and the top ones that nobody set."""
    import msgspec  # late, with the configuration

    settings = msgspec.to_builtins(loaded.settings)
    found = {key: _at(settings, key) for key in loaded.origin}
    tops = {key.partition(".")[0] for key in found}
    found |= {key: value for key, value in settings.items() if key not in tops}
    return sorted(found.items())


def _at(settings: Any, key: str) -> Any:
    """The value at a dotted key; parts may have dots themselves, as registries' names do."""
    if key in settings:
        return settings[key]
    for end in range(len(key)):
        if key[end] == "." and isinstance(settings.get(key[:end]), dict):
            return _at(settings[key[:end]], key[end + 1 :])
    raise KeyError(key)
