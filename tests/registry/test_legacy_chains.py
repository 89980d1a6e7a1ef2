"""Images as chains of documents, and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.errors import Invalid
from lading.model import legacy

DIFFS = [f"sha256:{digit * 64}" for digit in "abc"]


def config(lines: list[dict[str, Any]], diff_ids: list[str]) -> bytes:
    return json.dumps(
        {
            "architecture": "arm64",
            "os": "linux",
            "created": "2024-01-02T03:04:05.678Z",
            "config": {"Cmd": ["/bin/sh"], "Env": ["A=ä"]},
            "history": lines,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        },
        indent=3,
    ).encode()


def test_an_image_comes_back_from_its_chain_byte_for_byte() -> None:
    lines: list[dict[str, Any]] = [
        {"created_by": "ADD base"},
        {"created_by": "ENV A=ä", "empty_layer": True},
        {"created_by": "RUN x", "comment": "why"},
    ]
    before = config(lines, DIFFS[:2])
    chain = legacy.chain_of(before)
    assert [link.diff_id for link in chain] == [DIFFS[0], "", DIFFS[1]]
    documents = [legacy.decode(link.document) for link in chain]
    assert [d["id"] for d in documents] == [link.id for link in chain]
    assert [d.get("parent") for d in documents] == [None, *(link.id for link in chain[:-1])]
    assert [d["container_config"]["Cmd"] for d in documents[:2]] == [["ADD base"], ["ENV A=ä"]]
    assert legacy.config_of(documents, DIFFS[:2]) == before
    assert legacy.config_of(documents) == before


def test_chains_of_the_same_start_share_it() -> None:
    base: list[dict[str, Any]] = [
        {"created_by": "ADD base"},
        {"created_by": "ENV", "empty_layer": True},
    ]
    ids = [
        [link.id for link in legacy.chain_of(config([*base, {"created_by": top}], DIFFS[:2]))]
        for top in ("one", "two")
    ]
    assert ids[0][:2] == ids[1][:2]
    assert ids[0][2] != ids[1][2]


@pytest.mark.parametrize("lines", [[], [{"created_by": "only one"}]])
def test_a_history_that_does_not_fit_gives_a_link_per_layer(lines: list[dict[str, Any]]) -> None:
    before = config(lines, DIFFS)
    chain = legacy.chain_of(before)
    assert [link.diff_id for link in chain] == DIFFS
    assert legacy.config_of([legacy.decode(link.document) for link in chain]) == before


def test_an_image_without_layers_is_one_empty_link() -> None:
    before = config([], [])
    (only,) = legacy.chain_of(before)
    assert only.diff_id == ""
    assert legacy.config_of([legacy.decode(only.document)]) == before


def test_a_chain_of_2014_becomes_a_config_with_its_history() -> None:
    documents: list[dict[str, Any]] = [
        {
            "id": "a" * 64,
            "created": "2014-05-01T00:00:00Z",
            "container_config": {"Cmd": ["sh", "x"]},
        },
        {
            "id": "b" * 64,
            "parent": "a" * 64,
            "created": "2014-05-02T00:00:00Z",
            "container_config": {"Cmd": None},
            "config": {"Cmd": ["top"]},
            "Size": 5,
            "author": "me",
        },
    ]
    found = json.loads(legacy.config_of(documents, DIFFS[:2]))
    assert found["config"] == {"Cmd": ["top"]}
    assert found["rootfs"] == {"type": "layers", "diff_ids": DIFFS[:2]}
    assert found["history"] == [
        {"created": "2014-05-01T00:00:00Z", "created_by": "sh x"},
        {"created": "2014-05-02T00:00:00Z", "author": "me"},
    ]
    assert not {"id", "parent", "Size"} & set(found)


def test_a_chain_whose_layers_are_others_is_not_taken_at_its_word() -> None:
    chain = legacy.chain_of(config([], DIFFS[:1]))
    documents = [legacy.decode(link.document) for link in chain]
    found = json.loads(legacy.config_of(documents, DIFFS[1:2]))
    assert found["rootfs"]["diff_ids"] == DIFFS[1:2]


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"history": 5}', b'{"rootfs": [1]}'])
def test_what_is_no_config_is_refused(text: bytes) -> None:
    with pytest.raises(Invalid):
        legacy.chain_of(text)


@given(st.binary(max_size=64) | st.text(max_size=64).map(str.encode))
def test_any_bytes_are_a_config_or_refused(text: bytes) -> None:
    try:
        chain = legacy.chain_of(text)
    except Invalid:
        return
    assert legacy.config_of([legacy.decode(link.document) for link in chain]) == text
