"""The Dockerfile language: lines, variables, stages."""

from __future__ import annotations

import pytest

from lading.build.modes import Chmod
from lading.build.planner import plan
from lading.errors import Invalid
from lading.model.dockerfile import parse, split_flags
from lading.model.substitution import split_words, substitute

VALUES = {"a": "one", "empty": "", "path": "/usr/lib/x.tar.gz"}


@pytest.mark.parametrize(
    ("text", "names", "rests"),
    [
        ("FROM a\nrun x", ["FROM", "RUN"], ["a", "x"]),
        ("FROM a\nRUN x \\\n# no\n\n  y", ["FROM", "RUN"], ["a", "x   y"]),
        ("# escape=`\nFROM a\nRUN x `\ny", ["FROM", "RUN"], ["a", "x y"]),
        ("\ufeffFROM a\r\n# c\r\nCMD []\r\n", ["FROM", "CMD"], ["a", "[]"]),
        ("FROM a\nCOPY --chown=1:2 b c", ["FROM", "COPY"], ["a", "b c"]),
    ],
)
def test_lines(text: str, names: list[str], rests: list[str]) -> None:
    found = parse(text.encode()).instructions
    assert [i.name for i in found] == names
    assert [i.rest for i in found] == rests


def test_heredocs() -> None:
    text = b"FROM a\nCOPY <<A <<-'B' /d/\nx\nA\n\ty$v\n\tB\nRUN z\n"
    copy = parse(text).instructions[1]
    assert [(d.name, d.content, d.expand) for d in copy.heredocs] == [
        ("A", "x\n", True),
        ("B", "y$v\n", False),
    ]
    assert parse(text).instructions[2].line == 7


@pytest.mark.parametrize(
    ("line", "documents", "name"),
    [
        ("RUN cat <<E >f <<-'F'\na\nE\n\tb\n\tF", [("E", "a\n"), ("F", "b\n")], "RUN"),
        ('RUN 3<<"E.1" cat\n$x\nE.1', [("E.1", "$x\n")], "RUN"),
        ("RUN cat <<E>f\na\nE", [("E", "a\n")], "RUN"),
        ("RUN (cat <<E)\nE", [("E", "")], "RUN"),
        ('RUN echo "a <<E" $((1<<2)) a<<<b', [], "RUN"),
        ('COPY ["<<E", "/x"]', [], "COPY"),
        ("ONBUILD RUN <<E\na\nE", [("E", "a\n")], "ONBUILD"),
        ("CMD cat <<E", [], "CMD"),
    ],
)
def test_where_documents_begin(line: str, documents: list[tuple[str, str]], name: str) -> None:
    found = parse(f"FROM a\n{line}\nUSER b\n".encode()).instructions
    assert [(d.name, d.content) for d in found[1].heredocs] == documents
    assert found[1].name == name
    assert found[2].name == "USER"


def test_a_doubled_escape_continues_nothing() -> None:
    found = parse(b"FROM a\nRUN x \\\\\nRUN y \\  \n\n# c\n z").instructions
    assert [i.rest for i in found] == ["a", "x \\\\", "y  z"]


@pytest.mark.parametrize(
    ("text", "flags", "rest"),
    [
        ("--a=b --c d", [("a", "b"), ("c", "true")], "d"),
        ("--a=\"b c\" --d='e f' g", [("a", "b c"), ("d", "e f")], "g"),
        ("--a=b\\ c d", [("a", "b c")], "d"),
        ("--a -- --b", [("a", "true")], "--b"),
        ("-x --a", [], "-x --a"),
        ("--a=", [("a", "")], ""),
    ],
)
def test_flags(text: str, flags: list[tuple[str, str]], rest: str) -> None:
    assert split_flags(text) == (flags, rest)


def test_errors_have_a_caret_below_the_culprit() -> None:
    with pytest.raises(Invalid) as found:
        parse(b"FROM a\n\n  onbuild  COPPY x y\n")
    assert str(found.value).splitlines() == [
        "dockerfile parse error Dockerfile:3: unknown instruction: COPPY (did you mean COPY?)",
        "    onbuild COPPY x y",
        "            ^",
    ]


@pytest.mark.parametrize(
    ("text", "mode", "expected"),
    [
        ("755", 0o644, 0o755), ("4711", 0o644, 0o4711), ("u=rwX,go=rX", 0o600, 0o644),
        ("u=rwX,go=rX", 0o700, 0o755), ("a+x", 0o644, 0o755), ("+w", 0o444, 0o666),
        ("g=u", 0o640, 0o660), ("o-rwx,u+s", 0o755, 0o4750), ("+t", 0o777, 0o1777),
        ("ug+s", 0o755, 0o6755), ("u-x+w", 0o544, 0o644),
    ],
)  # fmt: skip
def test_modes(text: str, mode: int, expected: int) -> None:
    assert oct(Chmod(text).of(mode, directory=False)) == oct(expected)


@pytest.mark.parametrize("text", ["", "8", "u", "u+q", "99999", "rwx", "u=rw,,g=r"])
def test_wrong_modes(text: str) -> None:
    with pytest.raises(Invalid):
        Chmod(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "cannot be empty"),
        (b"FROM a\nCOPPY x y", "Dockerfile:2: unknown instruction: COPPY"),
        (b"FROM a\nRUN", "RUN requires at least one argument"),
        (b"FROM a\nRUN <<E\nx", "unterminated heredoc E"),
        (b"# escape=x\nFROM a", "invalid ESCAPE"),
        (b"FROM a\n\0\1", "Dockerfile:2: binary content"),
        (b"\xff\xfe", "unknown instruction"),
    ],
)
def test_errors_name_the_line(text: bytes, told: str) -> None:
    with pytest.raises(Invalid, match=told.replace("(", r"\(")):
        parse(text)


def test_typo_suggests_the_nearest() -> None:
    with pytest.raises(Invalid) as found:
        parse(b"FROM a\nENTRYPIONT x")
    assert "did you mean ENTRYPOINT?" in str(found.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$a-${a}", "one-one"),
        ("${none:-x}${empty:-y}${empty-z}", "xy"),
        ("${a:+set}${empty:+no}${empty+yes}", "setyes"),
        ("${none:-${a}}", "one"),
        (r"\$a '$a' \"$a\"".replace('\\"', '"'), "$a $a one"),
        ("${path#*/}|${path##*/}", "usr/lib/x.tar.gz|x.tar.gz"),
        ("${path%.*}|${path%%.*}", "/usr/lib/x.tar|/usr/lib/x"),
        ("${path/usr/opt}|${path//\\//-}", "/opt/lib/x.tar.gz|-usr-lib-x.tar.gz"),
        ("$", "$"),
        ("${path#*[}|${path##*/l?b/}|${path%%l*}", "/usr/lib/x.tar.gz|x.tar.gz|/usr/"),
        ("${path/*x/}|${path//[.]/}|${a/o*/}", ".tar.gz|/usr/lib/x.tar.gz|"),
    ],
)
def test_substitution(text: str, expected: str) -> None:
    assert substitute(text, VALUES) == expected


@pytest.mark.parametrize("text", ["${none:?told}", "${a", "${a!x}", "${}"])
def test_bad_substitution(text: str) -> None:
    with pytest.raises(Invalid):
        substitute(text, VALUES)


def test_words() -> None:
    assert split_words("a=\"b c\" d=e\\ f '${x y}'") == ['a="b c"', "d=e\\ f", "'${x y}'"]


def test_only_needed_stages() -> None:
    file = parse(b"ARG v=1\nFROM x:$v AS a\nFROM y AS b\nRUN q\nFROM a AS c\nFROM z\n")
    assert [s.base for s in plan(file, {}, "c").stages] == ["x:1", "a"]
    assert [s.base for s in plan(file, {"v": "2"}, "a").stages] == ["x:2"]
    assert [s.index for s in plan(file, {}).stages] == [3]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"RUN x\nFROM a", "before the first FROM"),
        (b"FROM a AS x\nCOPY --from=y a b\nFROM x AS y\nCOPY --from=x a b", "circular"),
        (b"FROM a b", "one or three"),
        (b"FROM $none", "should not be blank"),
        (b"FROM a AS x\nCOPY --from=0 a b", "earlier"),
    ],
)
def test_bad_stages(text: bytes, told: str) -> None:
    with pytest.raises(Invalid, match=told):
        plan(parse(text), {})


def test_unknown_target() -> None:
    with pytest.raises(Invalid, match="target nope"):
        plan(parse(b"FROM a"), {}, "nope")
