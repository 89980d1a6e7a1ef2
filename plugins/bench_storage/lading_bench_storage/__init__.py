"""``lading bench storage``: filesystem backends side by side, measured on the engine that runs.

All goes through the daemon's API, as a user's work does, so whatever backend the daemon has can be
measured, whoever wrote it. The method is in docs/bench-storage.md.
"""
