"""``build --output``: where the result goes beside the engine's images."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass

from lading.cli.containers.changes import write_body
from lading.cli.errors import Failure
from lading.cli.files.copypaths import same
from lading.cli.files.unpack import unpack
from lading.cli.session import Session
from lading.cli.streams.terminal import is_terminal

KINDS = ("local", "tar", "oci", "docker", "image")


@dataclass(frozen=True)
class Output:
    """One of them; ``dest`` is a directory for ``local``, else a file, "" for standard output."""

    kind: str
    dest: str
    name: str = ""

    @property
    def to_stdout(self) -> bool:
        """Whether it is written there."""
        return self.kind in ("tar", "oci") and not self.dest


def parse(text: str) -> Output:
    """``type=local,dest=DIR``, or short ``DIR`` and ``-`` for a tar on stdout. Raises Failure."""
    if "=" not in text:
        return Output("tar", "") if text == "-" else Output("local", text)
    fields: dict[str, str] = {}
    for field in next(csv.reader([text])):
        name, equals, value = field.partition("=")
        if not equals:
            raise Failure(f'invalid --output "{text}": {field} is not NAME=VALUE')
        fields[name.strip().lower()] = value
    kind, dest = fields.pop("type", ""), fields.pop("dest", "")
    name = fields.pop("name", "")
    if kind == "registry" or fields.pop("push", "") == "true":
        raise Failure("build: an image is pushed with lading push, not by --output")
    if kind not in KINDS:
        raise Failure(f'invalid --output "{text}": type is one of {", ".join(KINDS)}')
    if fields:
        raise Failure(f'invalid --output "{text}": unknown {", ".join(fields)}')
    if kind == "local" and not dest:
        raise Failure("--output type=local needs a directory: dest=DIR")
    if kind == "image" and dest:
        raise Failure("--output type=image has no dest: the image stays in the engine")
    dest = "" if dest == "-" else dest
    found = Output(kind, dest, name)
    if found.to_stdout and is_terminal(1):
        raise Failure("refusing to write an archive to a terminal: redirect it, or give dest=FILE")
    return found


def deliver(session: Session, identity: str, tags: list[str], output: Output) -> None:
    """Bring the image ``identity`` where an output wants it."""
    if output.name:
        repository, _, tag = output.name.rpartition(":")
        if not repository or "/" in tag:
            repository, tag = output.name, "latest"
        session.post(f"/images/{identity}/tag", repo=repository, tag=tag)
    if output.kind in ("oci", "docker") and (output.dest or output.to_stdout):
        path, query = "/images/get", {"names": tags or [output.name or identity]}
        with session.request("GET", path, query=query) as response:
            write_body(response, output.dest)
    elif output.kind in ("local", "tar"):
        query = {"image": [identity]}
        with session.request("GET", "/lading/images/root", query=query) as response:
            if output.kind == "tar":
                write_body(response, output.dest)
                return
            os.makedirs(output.dest, exist_ok=True)
            unpack(response, output.dest, rename=same)
