"""``lading manifest inspect``."""

from __future__ import annotations

import json

from lading.cli.command import between, command
from lading.cli.flags import Call, switch
from lading.cli.images.reference import parse
from lading.cli.images.registry import auth_header


@command(
    "Show a manifest's descriptor and platforms as its registry has them",
    usage="[OPTIONS] MANIFEST",
    arguments=between(1, 2),
    flags=(
        switch("insecure", "", "Accepted; the daemon's configuration decides"),
        switch("verbose", "v", "Accepted; everything is shown"),
    ),
)
def inspect(call: Call) -> None:
    """Ask the daemon to ask the registry."""
    name = parse(call.args[-1])
    with call.session.request(
        "GET", f"/distribution/{name.familiar_full}/json", headers=auth_header(call.session, name)
    ) as response:
        call.session.print(json.dumps(response.json(), indent=4, ensure_ascii=False))
