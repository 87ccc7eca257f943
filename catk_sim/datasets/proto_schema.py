"""Protocol buffer classes from a schema that stands in our own code."""

import re
from functools import cached_property
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


class ProtoSchema:
    """The messages of a format, told as a `.proto` file tells them.

    Args:
        package: What the messages are named under.
        text: Messages of syntax proto2, none inside another. A oneof comes after a message's other
            fields.
    """

    def __init__(self, package: str, text: str) -> None:
        self._package = package
        self._text = text

    def message_class(self, name: str) -> Any:
        """Returns the class of a message of the schema."""
        descriptor = self._pool.FindMessageTypeByName(f"{self._package}.{name}")
        return message_factory.GetMessageClass(descriptor)

    @cached_property
    def _pool(self) -> Any:
        # A pool of its own, so that Waymo's classes can live in the same process.
        pool = descriptor_pool.DescriptorPool()
        pool.AddSerializedFile(self._file().SerializeToString())
        return pool

    def _file(self) -> descriptor_pb2.FileDescriptorProto:
        file = descriptor_pb2.FileDescriptorProto(
            name=f"{self._package}.proto", package=self._package, syntax="proto2"
        )
        messages = re.findall(r"^message (\w+) {(.*?)^}", self._text, re.DOTALL | re.MULTILINE)
        for name, body in messages:
            message = file.message_type.add(name=name)
            before_oneof, *oneof = re.split(r"oneof (?=\w+ {)", body)
            for field in self._fields(before_oneof):
                message.field.add(**field)
            for alternatives in oneof:
                message.oneof_decl.add(name=alternatives.split()[0])
                for field in self._fields(alternatives):
                    message.field.add(**field, oneof_index=0)
        return file

    def _fields(self, text: str) -> list[dict[str, Any]]:
        fields = []
        for repeated, kind, name, number in re.findall(r"(repeated )?(\w+) (\w+) = (\d+);", text):
            field: dict[str, Any] = {"name": name, "number": int(number)}
            field["label"] = "LABEL_REPEATED" if repeated else "LABEL_OPTIONAL"
            if kind.islower():
                field["type"] = f"TYPE_{kind.upper()}"
            else:
                field |= {"type": "TYPE_MESSAGE", "type_name": f".{self._package}.{kind}"}
            fields.append(field)
        return fields
