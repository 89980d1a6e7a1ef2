"""What works on this host and what does not, why, and how to mend it.

``plugins`` describes backends as they were loaded, ``tools`` programs, ``lading.linux.features``
the kernel, :func:`examination` all of it. The daemon tells it through ``GET /lading/doctor`` and
``GET /lading/plugins``; without a daemon :func:`loaded_here` loads the installed backends for the
time of one look.
"""

from __future__ import annotations

from lading.doctor.examination import examination, loaded_here
from lading.doctor.plugins import PluginReport, plugin_reports

__all__ = ["PluginReport", "examination", "loaded_here", "plugin_reports"]
