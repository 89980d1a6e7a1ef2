"""Removing images by Docker's rules: names first, then the image, then parents nobody names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lading.errors import Conflict, NotFound
from lading.images.catalog import Catalog
from lading.images.records import Deleted, Image
from lading.model import reference
from lading.store.events import Events


@dataclass(frozen=True, slots=True)
class User:
    """A container that uses an image."""

    id: str
    running: bool


#: Which containers use an image, by its id.
Users = Callable[[str], Sequence[User]]

#: Directories of the host where an image is shown, by its id.
Shown = Callable[[str], Sequence[str]]


class Removal:
    """Decides what may go and lets it go from the catalog; content is collected afterwards."""

    def __init__(self, catalog: Catalog, events: Events, users: Users, shown: Shown) -> None:
        self._catalog, self._events, self._users, self._shown = catalog, events, users, shown

    def remove(self, ref: str, *, force: bool, prune: bool) -> list[Deleted]:
        """Remove by name or id. Raises NotFound, Conflict."""
        image = self._catalog.get(self._catalog.find(ref))
        if _by_id(ref, image):
            return self._by_id(ref, image, force=force, prune=prune)
        return self._by_name(ref, image, force=force, prune=prune)

    def discard(self, image_id: str) -> None:
        """Remove an image without names, users and children by its id; one that is gone is fine."""
        self._catalog.drop(image_id)
        self._events.publish("image", "delete", image_id, {"name": image_id})

    def _by_name(self, ref: str, image: Image, *, force: bool, prune: bool) -> list[Deleted]:
        named = reference.parse(ref).with_default_tag()
        names = self._catalog.canonical_names(image.id)
        one = [n for n in names if n in (named.canonical, f"{named.name}@{named.digest}")]
        rest = [n for n in names if n not in one]
        # Digests of the repository whose last tag goes, go with it.
        tags_left = [n for n in rest if "@" not in n and _repository(n) == named.name]
        if not tags_left:
            one += [n for n in rest if "@" in n and _repository(n) == named.name]
            rest = [n for n in rest if n not in one]
        if not rest:
            self._check_shown(image)
        if not rest and (users := self._users(image.id)) and not force:
            raise Conflict(
                f'conflict: unable to remove repository reference "{ref}" (must force) - '
                f"container {users[0].id[:12]} is using its referenced image "
                f"{_short(image.id)}"
            )
        done = self._untag(image, one)
        if rest or self._users(image.id):
            return done
        return done + self._delete(image, prune=prune)

    def _by_id(self, ref: str, image: Image, *, force: bool, prune: bool) -> list[Deleted]:
        short = _short(image.id)
        self._check_shown(image)
        for user in self._users(image.id):
            state = "running" if user.running else "stopped"
            if user.running or not force:
                how = "cannot be forced" if user.running else "must be forced"
                raise Conflict(
                    f"conflict: unable to delete {short} ({how}) - image is being used by "
                    f"{state} container {user.id[:12]}"
                )
        names = self._catalog.canonical_names(image.id)
        repositories = {_repository(name) for name in names}
        if len(repositories) > 1 and not force:
            raise Conflict(
                f"conflict: unable to delete {short} (must be forced) - image is referenced in "
                "multiple repositories"
            )
        if self._catalog.children(image.id) and (not force or not names):
            raise Conflict(
                f"conflict: unable to delete {short} (cannot be forced) - image has dependent "
                "child images"
            )
        return self._untag(image, names) + self._delete(image, prune=prune)

    def _check_shown(self, image: Image) -> None:
        if places := self._shown(image.id):
            raise Conflict(
                f"conflict: unable to delete {_short(image.id)} (cannot be forced) - image is "
                f"mounted on {places[0]}",
                hint="lading image unmount",
            )

    def _untag(self, image: Image, names: Sequence[str]) -> list[Deleted]:
        self._catalog.unpoint(names)
        done = []
        for name in names:
            shown = reference.unfamiliar(name).familiar
            done.append(Deleted(untagged=shown))
            self._events.publish("image", "untag", image.id, {"name": image.id})
        return done

    def _delete(self, image: Image, *, prune: bool) -> list[Deleted]:
        if self._catalog.children(image.id):
            return []
        self._catalog.drop(image.id)
        self._events.publish("image", "delete", image.id, {"name": image.id})
        done = [Deleted(deleted=image.id)]
        done += [
            Deleted(deleted=la.chain_id)
            for la in reversed(image.layers)
            if la.chain_id not in self._catalog.chains()
        ]
        if prune and image.parent:
            done += self._delete_parent(image.parent)
        return done

    def _delete_parent(self, parent_id: str) -> list[Deleted]:
        try:
            parent = self._catalog.get(self._catalog.find(parent_id))
        except NotFound:
            return []
        held = self._users(parent.id) or self._shown(parent.id)
        if self._catalog.canonical_names(parent.id) or held:
            return []
        return self._delete(parent, prune=True)


def _by_id(ref: str, image: Image) -> bool:
    """Whether the user wrote (part of) the id rather than a name."""
    if not reference.is_id(ref):
        return False
    if not image.id.removeprefix("sha256:").startswith(ref.removeprefix("sha256:")):
        return False
    named = None if len(ref) == 64 or ref.startswith("sha256:") else reference.parse(ref)
    return named is None or named.with_default_tag().familiar not in image.repo_tags


def _repository(name: str) -> str:
    return reference.unfamiliar(name).name


def _short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:12]
