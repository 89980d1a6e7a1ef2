"""How results are shown: tables, templates, units, progress."""
