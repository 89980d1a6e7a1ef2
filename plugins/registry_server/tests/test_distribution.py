"""The distribution API, as OCI's specification has it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from lading.model import oci

UPLOADS = "/v2/team/app/blobs/uploads/"


def sha(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def put_blob(site: Any, content: bytes, name: str = "team/app", **options: Any) -> str:
    digest = sha(content)
    answer = site("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", content, **options)
    assert answer.status == 201, answer
    return digest


def manifest(config: str, *layers: str, kind: str = oci.MANIFEST, **more: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": {"mediaType": oci.CONFIG, "digest": config, "size": 2},
        "layers": [{"mediaType": oci.LAYER, "digest": d, "size": 3} for d in layers],
        **more,
    }
    return json.dumps(document).encode()


def put_image(site: Any, tag: str, *layers: bytes, name: str = "team/app", **options: Any) -> str:
    config = put_blob(site, b"{}", name, **options)
    body = manifest(config, *(put_blob(site, layer, name, **options) for layer in layers))
    path = f"/v2/{name}/manifests/{tag}"
    answer = site("PUT", path, body, Content_Type=oci.MANIFEST, **options)
    assert answer.status == 201, answer
    return str(answer.headers["docker-content-digest"])


def test_the_base_says_what_it_is(site: Any) -> None:
    answer = site("GET", "/v2/")
    assert (answer.status, answer.json) == (200, {})
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"


# -- uploads


def test_upload_in_one_post(site: Any) -> None:
    digest = put_blob(site, b"content")
    answer = site("GET", f"/v2/team/app/blobs/{digest}")
    assert (answer.status, answer.body) == (200, b"content")
    assert answer.headers["docker-content-digest"] == digest


def test_upload_by_post_and_put(site: Any) -> None:
    begun = site("POST", UPLOADS)
    assert begun.status == 202
    assert begun.headers["range"] == "0-0"
    digest = sha(b"content")
    ended = site("PUT", f"{begun.headers['location']}?digest={digest}", b"content")
    assert ended.status == 201
    assert ended.headers["location"] == f"/v2/team/app/blobs/{digest}"


def test_upload_in_chunks(site: Any) -> None:
    where = site("POST", UPLOADS).headers["location"]
    first = site("PATCH", where, b"abc", Content_Range="0-2")
    assert (first.status, first.headers["range"]) == (202, "0-2")
    wrong = site("PATCH", first.headers["location"], b"xyz", Content_Range="7-9")
    assert (wrong.status, wrong.headers["range"]) == (416, "0-2")
    again = site("PATCH", first.headers["location"], b"abc", Content_Range="0-2")
    assert again.status == 416
    asked = site("GET", where)
    assert (asked.status, asked.headers["range"]) == (204, "0-2")
    second = site("PATCH", asked.headers["location"], b"def", Content_Range="3-5")
    assert second.headers["range"] == "0-5"
    digest = sha(b"abcdefg")
    ended = site("PUT", f"{where}?digest={digest}", b"g", Content_Range="6-6")
    assert ended.status == 201
    assert site("GET", f"/v2/team/app/blobs/{digest}").body == b"abcdefg"


def test_chunk_of_another_length_than_it_says(site: Any) -> None:
    where = site("POST", UPLOADS).headers["location"]
    answer = site("PATCH", where, b"abc", Content_Range="0-9")
    assert (answer.status, answer.code) == (400, "SIZE_INVALID")


def test_upload_goes_on_after_a_restart(start: Callable[..., Any]) -> None:
    first = start("same")
    where = first("POST", UPLOADS).headers["location"]
    first("PATCH", where, b"before ")
    second = start("same")
    assert second("GET", where).headers["range"] == "0-6"
    digest = sha(b"before after")
    assert second("PUT", f"{where}?digest={digest}", b"after").status == 201


def test_upload_that_is_not_what_it_says(site: Any) -> None:
    where = site("POST", UPLOADS).headers["location"]
    answer = site("PUT", f"{where}?digest={sha(b'other')}", b"content")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert site("GET", f"/v2/team/app/blobs/{sha(b'other')}").status == 404
    assert site("GET", where).status == 404


@pytest.mark.parametrize("digest", ["", "nonsense", "sha256:abc", "md5:" + "0" * 32])
def test_upload_with_a_bad_digest(site: Any, digest: str) -> None:
    where = site("POST", UPLOADS).headers["location"]
    answer = site("PUT", f"{where}?digest={digest}", b"content")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_upload_can_be_cancelled(site: Any) -> None:
    where = site("POST", UPLOADS).headers["location"]
    site("PATCH", where, b"abc")
    assert site("DELETE", where).status == 204
    answer = site("GET", where)
    assert (answer.status, answer.code) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert list((site.root / "ingest").iterdir()) == []


def test_upload_belongs_to_its_repository(site: Any) -> None:
    where = site("POST", UPLOADS).headers["location"]
    stolen = where.replace("team/app", "other/app")
    assert site("PATCH", stolen, b"abc").status == 404


def test_mount(site: Any) -> None:
    digest = put_blob(site, b"shared")
    assert site("HEAD", f"/v2/other/app/blobs/{digest}").status == 404
    answer = site("POST", f"/v2/other/app/blobs/uploads/?mount={digest}&from=team/app")
    assert (answer.status, answer.headers["location"]) == (201, f"/v2/other/app/blobs/{digest}")
    assert site("GET", f"/v2/other/app/blobs/{digest}").body == b"shared"
    absent = site("POST", f"/v2/other/app/blobs/uploads/?mount={sha(b'no')}&from=team/app")
    assert absent.status == 202
    assert "/uploads/" in absent.headers["location"]


# -- blobs


def test_head_of_a_blob(site: Any) -> None:
    digest = put_blob(site, b"content")
    answer = site("HEAD", f"/v2/team/app/blobs/{digest}")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "7", b"")
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("wanted", "status", "span", "body"),
    [
        ("bytes=2-4", 206, "bytes 2-4/7", b"nte"),
        ("bytes=2-", 206, "bytes 2-6/7", b"ntent"),
        ("bytes=-2", 206, "bytes 5-6/7", b"nt"),
        ("bytes=0-0", 206, "bytes 0-0/7", b"c"),
        ("bytes=5-99", 206, "bytes 5-6/7", b"nt"),
        ("bytes=7-", 416, "bytes */7", None),
        ("bytes=4-2", 200, None, b"content"),
        ("lines=1-2", 200, None, b"content"),
        ("bytes=0-1,3-4", 200, None, b"content"),
    ],
)
def test_ranges(site: Any, wanted: str, status: int, span: str | None, body: bytes | None) -> None:
    digest = put_blob(site, b"content")
    answer = site("GET", f"/v2/team/app/blobs/{digest}", Range=wanted)
    assert (answer.status, answer.headers.get("content-range")) == (status, span)
    if body is not None:
        assert answer.body == body


def test_blob_that_is_not_changed(site: Any) -> None:
    digest = put_blob(site, b"content")
    tag = site("GET", f"/v2/team/app/blobs/{digest}").headers["etag"]
    assert site("GET", f"/v2/team/app/blobs/{digest}", If_None_Match=tag).status == 304


def test_unknown_and_impossible_blobs(site: Any) -> None:
    unknown = site("GET", f"/v2/team/app/blobs/{sha(b'no')}")
    assert (unknown.status, unknown.code) == (404, "BLOB_UNKNOWN")
    bad = site("GET", "/v2/team/app/blobs/..%2f..%2fetc")
    assert bad.status in (400, 404)


def test_deleted_blob(site: Any) -> None:
    digest = put_blob(site, b"content")
    assert site("DELETE", f"/v2/team/app/blobs/{digest}").status == 202
    assert site("GET", f"/v2/team/app/blobs/{digest}").status == 404
    assert site("DELETE", f"/v2/team/app/blobs/{digest}").status == 404


# -- manifests


def test_manifest_by_tag_and_digest(site: Any) -> None:
    digest = put_image(site, "v1", b"one")
    for reference in ("v1", digest):
        answer = site("GET", f"/v2/team/app/manifests/{reference}", Accept=oci.MANIFEST)
        assert answer.status == 200
        assert sha(answer.body) == digest == answer.headers["docker-content-digest"]
        assert answer.headers["content-type"] == oci.MANIFEST
        head = site("HEAD", f"/v2/team/app/manifests/{reference}")
        assert head.headers["content-length"] == str(len(answer.body))
    assert site("GET", "/v2/team/app/manifests/v1", If_None_Match=f'"{digest}"').status == 304


def test_manifest_that_lacks_a_blob(site: Any) -> None:
    config = put_blob(site, b"{}")
    body = manifest(config, sha(b"missing"))
    answer = site("PUT", "/v2/team/app/manifests/v1", body, Content_Type=oci.MANIFEST)
    assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert answer.json["errors"][0]["detail"] == {"digest": sha(b"missing")}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"not json", oci.MANIFEST),
        (b"[]", oci.MANIFEST),
        (b'{"schemaVersion": 2}', oci.MANIFEST),
        (b'{"schemaVersion": 1}', oci.DOCKER_MANIFEST),
        (b'{"schemaVersion": 2, "manifests": []}', "application/json"),
        (b'{"schemaVersion": 2, "mediaType": "x", "manifests": []}', oci.INDEX),
        (b'{"schemaVersion": 2, "config": "x", "layers": []}', oci.MANIFEST),
    ],
)
def test_what_is_no_manifest(site: Any, body: bytes, kind: str) -> None:
    answer = site("PUT", "/v2/team/app/manifests/v1", body, Content_Type=kind)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")


def test_manifest_of_another_digest(site: Any) -> None:
    config = put_blob(site, b"{}")
    path = f"/v2/team/app/manifests/{sha(b'other')}"
    answer = site("PUT", path, manifest(config), Content_Type=oci.MANIFEST)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize("tag", ["-bad", "a" * 129, ".hidden"])
def test_bad_tags(site: Any, tag: str) -> None:
    config = put_blob(site, b"{}")
    answer = site(
        "PUT", f"/v2/team/app/manifests/{tag}", manifest(config), Content_Type=oci.MANIFEST
    )
    assert (answer.status, answer.code) == (400, "TAG_INVALID")


@pytest.mark.parametrize("name", ["Team/app", "team//app", "team/_app", "a" * 256])
def test_bad_names(site: Any, name: str) -> None:
    answer = site("GET", f"/v2/{name}/tags/list")
    assert (answer.status, answer.code) == (400, "NAME_INVALID")


def test_index_needs_its_manifests(site: Any) -> None:
    row = {"mediaType": oci.MANIFEST, "digest": sha(b"missing"), "size": 3}
    body = json.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [row]}).encode()
    answer = site("PUT", "/v2/team/app/manifests/all", body, Content_Type=oci.INDEX)
    assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")


def test_index_for_those_who_know_no_indexes(site: Any) -> None:
    digest = put_image(site, "amd", b"one")
    platform = {"os": "linux", "architecture": "amd64"}
    row = {"mediaType": oci.MANIFEST, "digest": digest, "size": 3, "platform": platform}
    body = json.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [row]}).encode()
    site("PUT", "/v2/team/app/manifests/all", body, Content_Type=oci.INDEX)
    both = f"{oci.MANIFEST}, {oci.INDEX}"
    assert site("GET", "/v2/team/app/manifests/all", Accept=both).body == body
    assert site("GET", "/v2/team/app/manifests/all").body == body
    only = site("GET", "/v2/team/app/manifests/all", Accept=oci.MANIFEST)
    assert only.headers["docker-content-digest"] == digest


def test_deleted_tag_leaves_the_manifest(site: Any) -> None:
    digest = put_image(site, "v1", b"one")
    assert site("DELETE", "/v2/team/app/manifests/v1").status == 202
    assert site("GET", "/v2/team/app/manifests/v1").code == "MANIFEST_UNKNOWN"
    assert site("GET", f"/v2/team/app/manifests/{digest}").status == 200
    assert site("DELETE", "/v2/team/app/manifests/v1").status == 404


def test_deleted_manifest_takes_its_tags(site: Any) -> None:
    digest = put_image(site, "v1", b"one")
    put_image(site, "v2", b"two")
    assert site("DELETE", f"/v2/team/app/manifests/{digest}").status == 202
    assert site("GET", "/v2/team/app/tags/list").json["tags"] == ["v2"]


# -- lists


def test_tags_by_pages(site: Any) -> None:
    for number in range(5):
        put_image(site, f"t{number}", b"one")
    assert site("GET", "/v2/team/app/tags/list").json == {
        "name": "team/app",
        "tags": ["t0", "t1", "t2", "t3", "t4"],
    }
    found, path = [], "/v2/team/app/tags/list?n=2"
    while path:
        answer = site("GET", path)
        found.append(answer.json["tags"])
        link = answer.headers.get("link", "")
        path = link.partition("<")[2].partition(">")[0]
    assert found == [["t0", "t1"], ["t2", "t3"], ["t4"]]
    assert site("GET", "/v2/team/app/tags/list?n=0").json["tags"] == []
    assert site("GET", "/v2/team/app/tags/list?last=t2").json["tags"] == ["t3", "t4"]
    assert site("GET", "/v2/team/app/tags/list?n=x").code == "PAGINATION_NUMBER_INVALID"


def test_tags_of_an_unknown_repository(site: Any) -> None:
    answer = site("GET", "/v2/no/such/tags/list")
    assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")


def test_catalog_by_pages(site: Any) -> None:
    for name in ("b/two", "a/one", "c"):
        put_image(site, "t", b"one", name=name)
    site("POST", "/v2/empty/blobs/uploads/")
    assert site("GET", "/v2/_catalog").json == {"repositories": ["a/one", "b/two", "c"]}
    first = site("GET", "/v2/_catalog?n=1")
    assert first.json == {"repositories": ["a/one"]}
    follow = first.headers["link"].partition("<")[2].partition(">")[0]
    assert urlsplit(follow).query == "last=a%2Fone&n=1"
    assert site("GET", follow).json == {"repositories": ["b/two"]}


def test_referrers(site: Any) -> None:
    subject = put_image(site, "v1", b"one")
    config = put_blob(site, b"{}")
    about = {"mediaType": oci.MANIFEST, "digest": subject, "size": 3}
    for kind in ("application/x.sbom", "application/x.signature"):
        body = manifest(config, subject=about, artifactType=kind, annotations={"k": kind})
        answer = site("PUT", f"/v2/team/app/manifests/{sha(body)}", body, Content_Type=oci.MANIFEST)
        assert (answer.status, answer.headers["oci-subject"]) == (201, subject)
    found = site("GET", f"/v2/team/app/referrers/{subject}")
    assert found.headers["content-type"] == oci.INDEX
    assert [row["artifactType"] for row in found.json["manifests"]] == [
        "application/x.sbom",
        "application/x.signature",
    ]
    one = site("GET", f"/v2/team/app/referrers/{subject}?artifactType=application/x.sbom")
    assert one.headers["oci-filters-applied"] == "artifactType"
    assert [row["annotations"] for row in one.json["manifests"]] == [{"k": "application/x.sbom"}]
    none = site("GET", f"/v2/team/app/referrers/{sha(b'no')}")
    assert (none.status, none.json["manifests"]) == (200, [])


# -- form


def test_unknown_methods_and_paths(site: Any) -> None:
    put_image(site, "v1", b"one")
    answer = site("POST", "/v2/team/app/manifests/v1")
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")
    assert "PUT" in answer.headers["allow"]
    assert site("GET", "/v2/nothing").status == 404


def test_a_name_is_the_same_with_and_without_library(site: Any) -> None:
    digest = put_image(site, "v1", b"one", name="library/app")
    assert site("HEAD", "/v2/app/manifests/v1").headers["docker-content-digest"] == digest
    assert site("GET", "/v2/_catalog").json == {"repositories": ["app"]}
