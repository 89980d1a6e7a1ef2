"""Go's ``text/template`` as far as ``--format`` needs it: parse once, render many times.

Fields and methods, pipelines, variables, ``if``/``else if``, ``range``, ``with``, ``define`` and
``template``, ``break`` and ``continue``, trim markers, and the functions of
:mod:`lading.cli.gotemplate.functions`. Data are what JSON gives, and :class:`Record` for objects
that work their fields out when they are asked for. Messages of errors follow Go's, since scripts
meet them.
"""

from __future__ import annotations

from lading.cli.gotemplate._nodes import Record
from lading.cli.gotemplate._parser import Template
from lading.cli.gotemplate.functions import TemplateError

__all__ = ["Record", "Template", "TemplateError"]
