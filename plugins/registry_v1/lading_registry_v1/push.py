"""A push: announced to the index, link by link to the registry, then the tags."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from urllib.parse import quote

from urllib3.response import BaseHTTPResponse

from lading.errors import Conflict, Invalid, LadingError, Unavailable
from lading.hooks.registry import OutgoingImage, OutgoingLayer, PushedLayer, Stream
from lading.http import retries
from lading.model import legacy, oci
from lading_registry_v1.layers import Bytes, OutgoingPayload
from lading_registry_v1.session import Session, error_text
from lading_registry_v1.tarsum import tarsum

ATTEMPTS = 3
#: Registries say just this about an image that they have; programs compare it letter by letter.
EXISTS = "Image already exists"


class Push:
    """One image on its way; used by one thread at a time."""

    def __init__(self, session: Session, name: str, image: OutgoingImage) -> None:
        self._session, self._name = session, name
        self._chain = legacy.chain_of(image.config)
        filled = sum(1 for link in self._chain if link.diff_id)
        if filled != len(image.layers):
            raise Invalid(f"the image has {len(image.layers)} layers, its config {filled}")
        self._next = 0
        rows = []
        for link in self._chain[:-1]:
            rows.append({"id": link.id})
        rows += [{"id": self._chain[-1].id, "Tag": tag} for tag in image.tags] or [
            {"id": self._chain[-1].id}
        ]
        body = json.dumps(rows).encode()
        session.ask_index("PUT", f"repositories/{name}/", body=body, expect=(200, 201))

    def layer(self, layer: OutgoingLayer, tell: Callable[[int], None]) -> PushedLayer:
        """Send the chain up to the next link with content, which this layer is."""
        self._empty_links()
        link = self._chain[self._next]
        if link.diff_id != layer.diff_id:
            raise Invalid(f"layer {layer.diff_id} is pushed out of order")
        there = self._link(link, layer.open, layer.media_type, tell)
        self._next += 1
        if there:
            return PushedLayer(
                layer.digest or layer.diff_id, layer.size, layer.media_type, "exists"
            )
        digest, size = layer.sent()
        return PushedLayer(digest, size, layer.media_type, "pushed")

    def _empty_links(self) -> None:
        while self._next < len(self._chain) and not self._chain[self._next].diff_id:
            self._link(
                self._chain[self._next],
                lambda: Bytes(legacy.EMPTY_LAYER),
                oci.LAYER_GZIP,
                lambda sent: None,
            )
            self._next += 1

    def finish(self, tag: str) -> None:
        """Send what is left of the chain, set the tag, tell the index. May be repeated."""
        self._empty_links()
        path = f"repositories/{self._name}/tags/{quote(tag)}"
        body = json.dumps(self._chain[-1].id).encode()
        self._session.ask_registry("PUT", path, body=body, expect=(200, 201))
        path = f"repositories/{self._name}/images"
        self._session.ask_index("PUT", path, body=b"[]", expect=(200, 201, 204))

    def _link(
        self,
        link: legacy.LegacyLayer,
        opened: Callable[[], Stream],
        media_type: str,
        tell: Callable[[int], None],
    ) -> bool:
        """Store one link; whether it was there already. A broken one begins anew."""
        path = f"images/{link.id}"
        for attempt in range(ATTEMPTS):
            # Also after a failure: another program may be pushing the same image.
            if self._is_there(path):
                return True
            try:
                self._send(link, path, opened, media_type, tell)
                return False
            except (Conflict, Unavailable) as error:
                if isinstance(error, Conflict) and error.message == EXISTS:
                    return True
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(retries.pause(attempt))
        return False

    def _is_there(self, path: str) -> bool:
        answer = self._session.ask_registry("GET", f"{path}/json", expect=(200, 400, 401, 403, 404))
        return answer.status == 200

    def _send(
        self,
        link: legacy.LegacyLayer,
        path: str,
        opened: Callable[[], Stream],
        media_type: str,
        tell: Callable[[int], None],
    ) -> None:
        """Document, layer, checksum. Raises Conflict when the registry has the image."""
        self._put(f"{path}/json", link.document)
        outgoing = OutgoingPayload(link.document, opened(), media_type)
        try:
            answer = self._session.ask_registry(
                "PUT",
                f"{path}/layer",
                headers={"Content-Type": "application/octet-stream"},
                body=outgoing.pieces(tell),
                expect=(200, 201, 204, 409),
            )
        finally:
            outgoing.close()
        self._check(answer)
        again = opened()
        try:
            by_files = tarsum(link.document, again)
        except LadingError:
            by_files = ""  # not a tar that the programs of the time could sum up either
        finally:
            again.close()
        headers = {"X-Docker-Checksum-Payload": outgoing.checksum}
        if by_files:
            headers["X-Docker-Checksum"] = by_files
        answer = self._session.ask_registry(
            "PUT", f"{path}/checksum", headers=headers, expect=(200, 201, 204, 400, 409)
        )
        self._check(answer)

    def _put(self, path: str, document: bytes) -> None:
        self._check(
            self._session.ask_registry("PUT", path, body=document, expect=(200, 201, 204, 409))
        )

    def _check(self, answer: BaseHTTPResponse) -> None:
        """Raise Conflict when somebody else has pushed the image, or is about to."""
        if answer.status in (400, 409):
            said = error_text(answer) or f"the registry answers {answer.status}"
            raise Conflict(said if said == EXISTS else f"{self._session.remote.host}: {said}")
