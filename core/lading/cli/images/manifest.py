"""``lading manifest inspect``."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from lading.cli.command import command, exactly
from lading.cli.flags import Call, switch
from lading.cli.images.reference import parse
from lading.cli.images.registry import auth_header


@command(
    "Show a manifest, or a list of them, as its registry has it",
    usage="[OPTIONS] MANIFEST",
    arguments=exactly(1),
    flags=(
        switch("insecure", "", "Allow plain HTTP and unverified TLS"),
        switch("verbose", "v", "With descriptor and platform; of a list, each manifest"),
    ),
)
def inspect(call: Call) -> None:
    """Ask the daemon to ask the registry."""
    name = parse(call.args[0])
    query = {"all": int(call.on("verbose")), "insecure": int(call.on("insecure"))}
    path = f"/lading/manifests/{name.familiar_full}"
    headers = auth_header(call.session, name)
    with call.session.request("GET", path, query=query, headers=headers) as response:
        first, *others = response.json()
    if not call.on("verbose"):
        _print(call, json.loads(base64.b64decode(first["Raw"])))
    else:
        _print(call, [_told(row) for row in others] if others else _told(first))


def _print(call: Call, value: object) -> None:
    call.session.print(json.dumps(value, indent="\t", ensure_ascii=False))


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with what is known of it, and its content in Docker's two names for that."""
    kind = str(row["Descriptor"]["mediaType"])
    field = "SchemaV2Manifest" if ".docker." in kind else "OCIManifest"
    return {**row, field: json.loads(base64.b64decode(row["Raw"]))}
