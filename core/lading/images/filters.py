"""The filters of ``images``: which images, and which of their names."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from lading.errors import Invalid
from lading.images.records import Image
from lading.model import reference
from lading.store.clock import nanoseconds, point_in_time

KEYS = ("before", "dangling", "label", "label!", "reference", "since", "until")


class ImageFilters:
    """A parsed set of filters; all must hold, of one key any value. Raises Invalid, NotFound."""

    def __init__(self, filters: Mapping[str, Sequence[str]], get: Callable[[str], Image]) -> None:
        for key in filters:
            if key not in KEYS:
                raise Invalid(f"invalid filter '{key}'", hint=f"known: {', '.join(KEYS)}")
        self._filters = filters
        self._before = [get(v).created for v in filters.get("before", ())]
        self._since = [get(v).created for v in filters.get("since", ())]
        self._until = [point_in_time(v) for v in filters.get("until", ())]
        self._dangling = [_truth(v) for v in filters.get("dangling", ())]

    def apply(self, image: Image) -> Image | None:
        """The image with the names that match, or None."""
        if self._dangling and self._dangling[0] != (not image.repo_tags):
            return None
        if any(image.created >= moment for moment in self._before):
            return None
        if any(image.created <= moment for moment in self._since):
            return None
        if any(nanoseconds(image.created) >= moment for moment in self._until):
            return None
        if not all(_has_label(image, label) for label in self._filters.get("label", ())):
            return None
        if any(_has_label(image, label) for label in self._filters.get("label!", ())):
            return None
        patterns = self._filters.get("reference", ())
        if not patterns:
            return image
        tags = [t for t in image.repo_tags if any(_matches(t, p) for p in patterns)]
        digests = [d for d in image.repo_digests if any(_matches(d, p) for p in patterns)]
        return replace(image, repo_tags=tags, repo_digests=digests) if tags or digests else None


def _has_label(image: Image, wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in image.labels and (not equals or image.labels[key] == value)


def _matches(name: str, pattern: str) -> bool:
    """Whether a familiar name, whole or without its tag, fits a shell pattern by components."""
    repository = reference.parse(name).familiar_name
    for candidate in (name, repository):
        parts, wanted = candidate.split("/"), pattern.split("/")
        if len(parts) == len(wanted) and all(
            fnmatch.fnmatchcase(p, w) for p, w in zip(parts, wanted, strict=True)
        ):
            return True
    return False


def _truth(value: str) -> bool:
    if value.lower() in ("true", "1"):
        return True
    if value.lower() in ("false", "0"):
        return False
    raise Invalid(f"invalid filter 'dangling={value}'")
