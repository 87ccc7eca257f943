import pytest

from catk_sim.datasets.proto_schema import ProtoSchema

SCHEMA = ProtoSchema(
    "some.format",
    """
message Whole {
  string name = 1;
  repeated Part parts = 3;
  oneof kind {
    Part one = 4;
    int32 other = 5;
  }
}
message Part {
  repeated double values = 2;
}
""",
)


def test_fields_are_as_the_text_tells() -> None:
    fields = SCHEMA.message_class("Whole").DESCRIPTOR.fields_by_name
    assert {name: field.number for name, field in fields.items()} == {
        "name": 1,
        "parts": 3,
        "one": 4,
        "other": 5,
    }
    assert [field.is_repeated for field in fields.values()] == [False, True, False, False]
    assert fields["name"].type == fields["name"].TYPE_STRING
    assert fields["other"].type == fields["other"].TYPE_INT32
    part = SCHEMA.message_class("Part").DESCRIPTOR
    assert fields["parts"].message_type == fields["one"].message_type == part


def test_a_message_is_written_and_read() -> None:
    whole = SCHEMA.message_class("Whole")
    message = whole(name="a")
    message.parts.add(values=[1.5, -2.0])
    assert whole.FromString(message.SerializeToString()) == message
    # Tag and length, and two doubles unpacked as proto2 does.
    assert len(message.parts[0].SerializeToString()) == 2 * 9


def test_of_a_oneof_the_last_one_counts() -> None:
    message = SCHEMA.message_class("Whole")()
    message.one.values.append(1.0)
    message.other = 3
    assert message.WhichOneof("kind") == "other"
    assert not message.HasField("one")


def test_a_schema_is_told_apart_from_another_of_the_same_names() -> None:
    other = ProtoSchema("some.format", "message Part {\n  string name = 1;\n}\n")
    assert [field.name for field in other.message_class("Part").DESCRIPTOR.fields] == ["name"]
    assert [field.name for field in SCHEMA.message_class("Part").DESCRIPTOR.fields] == ["values"]


def test_an_unknown_message_is_told() -> None:
    with pytest.raises(KeyError, match="Nothing"):
        SCHEMA.message_class("Nothing")
