"""The tables of a registry."""

from __future__ import annotations

from lading.store.db import Schema

SCHEMA = Schema(
    "registry",
    [
        """
        CREATE TABLE repositories (
            name TEXT PRIMARY KEY, owner TEXT NOT NULL, private INTEGER NOT NULL DEFAULT 0,
            description TEXT NOT NULL DEFAULT '', created TEXT NOT NULL, updated TEXT NOT NULL
        );
        CREATE TABLE grants (
            repository TEXT NOT NULL REFERENCES repositories (name) ON DELETE CASCADE,
            user TEXT NOT NULL, push INTEGER NOT NULL, PRIMARY KEY (repository, user)
        );
        CREATE TABLE stars (
            repository TEXT NOT NULL REFERENCES repositories (name) ON DELETE CASCADE,
            user TEXT NOT NULL, PRIMARY KEY (repository, user)
        );
        -- A tag leads to a manifest, or to the top of a chain of 2014, or to both once the one
        -- has been made from the other.
        CREATE TABLE tags (
            repository TEXT NOT NULL REFERENCES repositories (name) ON DELETE CASCADE,
            tag TEXT NOT NULL, digest TEXT NOT NULL, image TEXT NOT NULL, updated TEXT NOT NULL,
            pusher TEXT NOT NULL DEFAULT '', PRIMARY KEY (repository, tag)
        );
        CREATE TABLE manifests (
            repository TEXT NOT NULL REFERENCES repositories (name) ON DELETE CASCADE,
            digest TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL,
            subject TEXT NOT NULL, artifact_type TEXT NOT NULL, annotations TEXT NOT NULL,
            added REAL NOT NULL, PRIMARY KEY (repository, digest)
        );
        CREATE INDEX manifests_by_subject ON manifests (repository, subject);
        -- Which blobs a repository shows. ``seen`` spares from collection what a push counts on.
        CREATE TABLE links (
            repository TEXT NOT NULL REFERENCES repositories (name) ON DELETE CASCADE,
            digest TEXT NOT NULL, seen REAL NOT NULL, PRIMARY KEY (repository, digest)
        );
        -- Chains of 2014. ``layer`` is a blob, '' before it is here; ``payload`` the checksum over
        -- document and layer; ``diff_id`` and ``payload`` are '' until they are asked for.
        CREATE TABLE images (
            id TEXT PRIMARY KEY, parent TEXT NOT NULL, document BLOB NOT NULL,
            layer TEXT NOT NULL, payload TEXT NOT NULL, diff_id TEXT NOT NULL,
            uploading INTEGER NOT NULL, seen REAL NOT NULL
        );
        CREATE TABLE members (
            repository TEXT NOT NULL REFERENCES repositories (name) ON DELETE CASCADE,
            image TEXT NOT NULL, position INTEGER NOT NULL, tag TEXT NOT NULL,
            checksum TEXT NOT NULL, PRIMARY KEY (repository, image)
        );
        CREATE INDEX members_by_image ON members (image);
        CREATE VIRTUAL TABLE words USING fts5 (name, description, tokenize = 'trigram');
        """
    ],
)
