"""Go templates: what they print, and how they fail."""

from __future__ import annotations

from typing import Any

import pytest

from lading.cli.gotemplate import Template, TemplateError

DATA: dict[str, Any] = {
    "Name": "web",
    "Id": "0123",
    "Count": 2,
    "Rate": 1.5,
    "On": True,
    "Off": False,
    "Nothing": None,
    "List": ["a", "b", "c"],
    "Empty": [],
    "Labels": {"b": "2", "a": "1"},
    "Deep": {"Ports": {"80/tcp": [{"HostPort": "8080"}], "90/tcp": None}},
}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("plain", "plain"),
        ("{{.Name}}", "web"),
        ("{{ .Name }}-{{.Count}}", "web-2"),
        ("{{.ID}}", "0123"),
        ("{{.Rate}} {{.On}} {{.List}} {{.Labels}}", "1.5 true [a b c] map[a:1 b:2]"),
        ("{{.Nothing}} {{.Labels.none}}", "<nil> <no value>"),
        ("{{if .Labels.none}}x{{end}}{{json .Nothing}}", "null"),
        ("{{json .Labels}}", '{"b":"2","a":"1"}'),
        ('{{json "<&>é"}}', '"<&>é"'),
        ("{{json .}}"[:0] + "{{json .List}}", '["a","b","c"]'),
        ('{{join .List "/"}} {{upper .Name}} {{title .Name}} {{lower "AB"}}', "a/b/c WEB Web ab"),
        ('{{range split "a:b" ":"}}<{{.}}>{{end}}', "<a><b>"),
        ("{{truncate .Name 2}}|{{pad .Name 1 2}}|", "we| web  |"),
        ("{{println .Name 1}}", "web 1\n"),
        ('{{print "a" 1 2 "b"}}', "a1 2b"),
        (
            '{{printf "%s=%d %5.1f %q %v %%" .Name .Count .Rate .Name .On}}',
            'web=2   1.5 "web" true %',
        ),
        ('{{printf "%-5s|%5s|%03d|%x" "ab" "cd" 7 255}}', "ab   |   cd|007|ff"),
        ('{{index .Labels "a"}}{{index .List 1}}', "1b"),
        ('{{index .Labels "none"}}.', "."),
        ('{{(index (index .Deep.Ports "80/tcp") 0).HostPort}}', "8080"),
        ('{{with index .Deep.Ports "80/tcp"}}{{(index . 0).HostPort}}{{end}}', "8080"),
        ("{{len .List}} {{len .Name}}", "3 3"),
        ("{{slice .Name 1 2}}", "e"),
        ("{{range .List}}{{.}},{{end}}", "a,b,c,"),
        ("{{range $i, $v := .List}}{{$i}}{{$v}} {{end}}", "0a 1b 2c "),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}", "a=1 b=2 "),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ('{{range .List}}{{if eq . "b"}}{{break}}{{end}}{{.}}{{end}}', "a"),
        ('{{range .List}}{{if eq . "b"}}{{continue}}{{end}}{{.}}{{end}}', "ac"),
        ("{{if .On}}yes{{end}}{{if .Off}}no{{else}}else{{end}}", "yeselse"),
        ("{{if .Off}}1{{else if .On}}2{{else}}3{{end}}", "2"),
        ("{{if and .On .Name}}x{{end}}{{if or .Off .Empty}}y{{else}}z{{end}}", "xz"),
        ("{{if not .Off}}x{{end}}", "x"),
        ("{{with .Nothing}}a{{else}}b{{end}}", "b"),
        ("{{with .Deep}}{{len .Ports}}{{end}}", "2"),
        ("{{with $x := .Name}}{{$x}}{{end}}", "web"),
        ('{{if eq .Count 1 2}}x{{end}}{{if ne .Name "a"}}y{{end}}', "xy"),
        ("{{if lt 1 2}}a{{end}}{{if ge 2 2}}b{{end}}{{if gt 1 2}}c{{end}}", "ab"),
        ("{{$n := .Name}}{{range .List}}{{$n}}{{.}}{{$.Count}} {{end}}", "weba2 webb2 webc2 "),
        ("{{$x := 1}}{{if .On}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ('{{.Name | upper | printf "%s-%s" "a"}}', "a-WEB"),
        ("a {{- .Name -}} b", "awebb"),
        ("{{/* nothing */}}x", "x"),
        ("{{- /* nothing */ -}} x", "x"),
        ('{{define "t"}}<{{.}}>{{end}}{{template "t" .Name}}', "<web>"),
        ('{{"a}}b"}}{{`raw "x"`}}', 'a}}braw "x"'),
        ("{{true}} {{3}} {{'a'}}", "true 3 97"),
        ('{{"tab\\there"}}', "tab\there"),
        ('{{html "<a>"}}', "&lt;a&gt;"),
    ],
)
def test_renders(source: str, expected: str) -> None:
    assert Template(source).render(DATA) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{", "unclosed action"),
        ("{{.Name", "unclosed action"),
        ('{{"abc}}', "unterminated quoted string"),
        ("{{nosuch .Name}}", 'function "nosuch" not defined'),
        ("{{if .On}}", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{}}", "missing value for command"),
        ("{{if}}x{{end}}", "missing value for command"),
        ("{{(.Name}}", "unclosed left paren"),
        ("one\n{{two}}", ':2: function "two" not defined'),
    ],
)
def test_does_not_parse(source: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(source)
    assert message in str(caught.value)
    assert str(caught.value).startswith("template: :")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{.Missing}}", 'map has no entry for key "Missing"'),
        ("{{.Name.Deeper}}", "can't evaluate field Deeper in type str"),
        ("{{.Nothing.Deeper}}", "nil data"),
        ("{{eq .Name 1}}", "incompatible types for comparison"),
        ("{{index .List 9}}", "index out of range: 9"),
        ('{{.Name "argument"}}', "can't give argument to non-function"),
        ("{{len .Count}}", "error calling len"),
        ("{{range .Name}}{{end}}", "range can't iterate over web"),
        ('{{template "none"}}', 'template "none" not defined'),
    ],
)
def test_does_not_render(source: str, message: str) -> None:
    with pytest.raises(TemplateError, match="executing") as caught:
        Template(source).render(DATA)
    assert message in str(caught.value)
