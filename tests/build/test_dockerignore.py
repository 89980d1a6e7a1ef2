"""The patterns of ``.dockerignore``, as moby's patternmatcher has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.errors import Invalid
from lading.model.dockerignore import Ignore

CASES = [
    ("**", "file", True), ("**", "dir/file", True), ("**/", "file", True),
    ("**/", "dir/file", True), ("**/**", "dir/file", True), ("dir/**", "dir/file", True),
    ("dir/**", "dir/dir2/file", True), ("dir/**", "dir", False), ("**/dir", "dir/file", True),
    ("**/dir2/*", "dir/dir2/file", True), ("**/dir2/*", "dir/dir2/dir2/file", True),
    ("**file", "file", True), ("**file", "dir/file", True), ("**/file", "dir/file", True),
    ("**file", "dir/dir/file", True), ("**/file*", "dir/dir/file.txt", True),
    ("**/file*txt", "dir/dir/file.txt", True), ("**/**/*.txt", "file.txt", True),
    ("**/**/*.txt2", "dir/dir/file.txt", False), ("a**/*.txt", "a/dir/dir/file.txt", True),
    ("a/*.txt", "a/dir/file.txt", False), ("a/*.txt", "a/file.txt", True),
    ("a/*.txt**", "a/file.txt", True), ("a[b-d]e", "ae", False), ("a[b-d]e", "ace", True),
    ("a[^b-d]e", "aze", True), ("a[^b-d]e", "ace", False), (".*", ".foo", True),
    (".*", "foo", False), ("abc.def", "abcZdef", False), ("abc?def", "abcZdef", True),
    ("abc?def", "abc/def", False), ("a\\*b", "a*b", True), ("a\\*b", "aXb", False),
    ("a\\b", "ab", True), ("**/foo/bar", "dir/foo/bar", True), ("**/foo/bar", "foo/bar", True),
    ("abc/**", "abc/def/ghi", True), ("**/.foo", ".foo", True), ("**/.foo", "bar.foo", False),
    ("a(b)c/def", "a(b)c/def", True), ("a(b)c/def", "a(b)c/xyz", False),
    ("a.|)$(}+{bc", "a.|)$(}+{bc", True), ("/leading", "leading", True),
    ("./dot", "dot", True), ("trailing/", "trailing/x", True), ("a/../b", "b", True),
    ("  blanks  ", "blanks", True), ("# comment", "# comment", False), ("dir", "dir/below", True),
    ("d", "dir", False), ("*", "a/b", True), ("", "x", False),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "path", "matches"), CASES)
def test_patterns(pattern: str, path: str, matches: bool) -> None:
    assert Ignore([pattern]).matches(path) == matches
    # With an exception beside it, another way of matching is taken.
    assert Ignore([pattern, "!nothing-of-that-name"]).matches(path) == matches


@pytest.mark.parametrize(
    ("lines", "path", "ignored"),
    [
        (["*", "!keep"], "keep", False),
        (["*", "!keep"], "keep/below", False),
        (["*", "!dir/keep"], "dir/keep", False),
        (["*", "!dir/keep"], "dir/other", True),
        (["!keep", "*"], "keep", True),
        (["*.md", "!README*.md", "README-secret.md"], "README-secret.md", True),
        (["*.md", "!README*.md", "README-secret.md"], "README-x.md", False),
        (["dir", "! dir/x "], "dir/x", False),
    ],
)
def test_exceptions(lines: list[str], path: str, ignored: bool) -> None:
    assert Ignore(lines).matches(path) == ignored


def test_wrong_patterns() -> None:
    with pytest.raises(Invalid, match="illegal exclusion pattern"):
        Ignore(["!"])
    with pytest.raises(Invalid, match="syntax error in pattern"):
        Ignore(["a[b"])


@given(st.lists(st.text("ab*?!/.[]\\", max_size=8), max_size=5), st.text("ab/.", max_size=8))
def test_both_ways_agree(lines: list[str], path: str) -> None:
    try:
        one = Ignore([line for line in lines if "!" not in line])
    except Invalid:
        return
    other = Ignore([*(line for line in lines if "!" not in line), "!nothing-of-that-name"])
    assert one.matches(path) == other.matches(path)
    assert one.may_skip("dir")
