"""The extension ``faults``: fail, delay or kill at any call of any hook, by rule.

For those who test an engine, a backend or what stands on them. Rules come from the configuration
(``[[extension.faults.rules]]``) and from ``lading faults``; they hold in the daemon and in the
processes of monitors, also in those of containers that run already. All share::

    <exec-root>/extension/faults/rules.json     the rules in force
    <exec-root>/extension/faults/counts/<id>    one byte for each call that a rule fitted
    <exec-root>/extension/faults/daemon         pid and start time of the daemon
"""

from lading_faults.extension import Faults

__all__ = ["Faults"]
