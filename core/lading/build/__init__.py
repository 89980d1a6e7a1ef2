"""Images from Dockerfiles: parser, plan, execution with a cache.

Nothing is imported here: the processes that copy files for a build need :mod:`.copying` alone.
"""
