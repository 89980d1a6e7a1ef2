"""The messages of containerd's API that are needed, by its published field numbers.

Sources: ``services/snapshots/v1``, ``services/leases/v1``, ``services/namespaces/v1``,
``services/introspection/v1`` and ``types/mount`` in containerd's ``api`` (stable since 1.0). On the
wire only numbers and types count, so the descriptors are made here, in a pool of their own: no
generated code that is bound to one version of protobuf, no clash with another package that
registers containerd's full files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "lading.containerd"

#: Message, field, number, type: ``labels`` is a map of strings, a star means repeated, and a
#: capital letter another message.
_TABLE = """
Mount                   type 1 string, source 2 string, target 3 string, options 4 string*
Info                    name 1 string, parent 2 string, kind 3 int32, labels 6 labels
Empty
PrepareSnapshotRequest  snapshotter 1 string, key 2 string, parent 3 string, labels 4 labels
CommitSnapshotRequest   snapshotter 1 string, name 2 string, key 3 string, labels 4 labels
SnapshotRequest         snapshotter 1 string, key 2 string
ListSnapshotsRequest    snapshotter 1 string
MountsResponse          mounts 1 Mount*
StatSnapshotResponse    info 1 Info
ListSnapshotsResponse   info 1 Info*
UsageResponse           size 1 int64, inodes 2 int64
CreateLeaseRequest      id 1 string
DeleteLeaseRequest      id 1 string, sync 2 bool
Namespace               name 1 string, labels 2 labels
FieldMask               paths 1 string*
GetNamespaceRequest     name 1 string
NamespaceMessage        namespace 1 Namespace
UpdateNamespaceRequest  namespace 1 Namespace, update_mask 2 FieldMask
PluginsRequest          filters 1 string*
Status                  code 1 int32, message 2 string
Plugin                  type 1 string, id 2 string, init_err 7 Status
PluginsResponse         plugins 1 Plugin*
VersionResponse         version 1 string, revision 2 string
"""

#: ``Kind`` of services/snapshots/v1.
VIEW, ACTIVE, COMMITTED = 1, 2, 3

_Field = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "string": _Field.TYPE_STRING,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "bool": _Field.TYPE_BOOL,
}


def _add_field(message: Any, name: str, number: str, kind: str) -> None:
    field = message.field.add(name=name, number=int(number))
    field.label = _Field.LABEL_REPEATED if kind[-1] in "*" else _Field.LABEL_OPTIONAL
    kind = kind.rstrip("*")
    if kind == "labels":
        entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        for part, tag in (("key", "1"), ("value", "2")):
            _add_field(entry, part, tag, "string")
        field.label, field.type = _Field.LABEL_REPEATED, _Field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{message.name}.{entry.name}"
    elif kind in _TYPES:
        field.type = _TYPES[kind]
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"


def _made() -> Mapping[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="lading_containerd.proto", package=_PACKAGE, syntax="proto3"
    )
    for line in _TABLE.strip().splitlines():
        name, _, fields = line.partition(" ")
        message = file.message_type.add(name=name)
        for field in filter(None, fields.strip().split(", ")):
            _add_field(message, *field.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message.name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{_PACKAGE}.{message.name}")
        )
        for message in file.message_type
    }


#: The message classes, by name.
MESSAGES = _made()
