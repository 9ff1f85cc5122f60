#!/usr/bin/python3
"""Checks the example's protobuf code against the golden vectors: vectors_test.py FOLDER

The tables below are docs/protocol.md once more. Every valid packet must decode to the message beside it, and
every canonical one must be encoded again to the same bytes.
"""

import base64
import json
import pathlib
import sys

sys.dont_write_bytecode = True
from provider import decode, field, message, varint, read_varint  # noqa: E402

ENUMS = {
    "EventType": "EVENT_TYPE_ UNSPECIFIED OPEN EXEC CLOSE_WRITE CREATE RENAME DELETE",
    "Action": "ACTION_ UNSPECIFIED ALLOW DENY ABSTAIN READ",
    "Access": "ACCESS_ UNSPECIFIED METADATA DESCRIPTOR DIGEST",
    "State": "STATE_ UNSPECIFIED LOADING READY DEGRADED",
}
# Fields in the order of their numbers, as name:type. + is repeated; 32 and 64 are bits of a number.
MESSAGES = {
    "to_provider": "welcome:Welcome subscribed:Subscribed event:Event cancel:Cancel reload:Reload "
                   "drain:Drain refused:Refused",
    "from_provider": "hello:Hello subscribe:Subscribe vote:Vote mute:Mute heartbeat:Heartbeat",
    "Hello": "major:+u32 sdk:text engine:text",
    "Welcome": "major:u32 minor:u32 provider:text content:text state_dir:text settings:map heartbeat_ms:u32 "
               "max_packet:u32 credit:u32",
    "Subscribe": "generation:u32 events:+EventType select_prefix:+text mute_prefix:+text min_size:u64 "
                 "max_size:u64 magic:+bytes access:Access by_actor:bool fresh:bool any_type:bool",
    "Subscribed": "generation:u32",
    "Mute": "actor_token:u64",
    "File": "dev:u64 handle:bytes ino:u64 size:i64 mtime_ns:i64 ctime_ns:i64 path:text mode:u32 uid:u32 "
            "sha256:bytes",
    "Process": "pid:i32 token:u64 ppid:i32 uid:u32 gid:u32 comm:text",
    "Event": "id:u64 seq:u64 dropped:u64 type:EventType budget_ns:u64 time_ns:u64 actor:Process file:File "
             "name:text new_dir:text new_name:text descriptor:bool",
    "Vote": "id:u64 action:Action confidence:u32 rule:text content:text",
    "Cancel": "id:u64", "Reload": "", "Drain": "",
    "Refused": "code:text detail:text",
    "Heartbeat": "processed:u64 state:State detail:text content:text",
}


def fields_of(kind):
    for number, entry in enumerate(MESSAGES[kind].split(), 1):
        name, _, what = entry.partition(":")
        yield number, name, what.lstrip("+"), what.startswith("+")


def is_number(what):
    return what in ENUMS or what == "bool" or what[0] in "ui" and what[1:].isdigit()


def number_to_json(what, n):
    if what == "bool":
        return n != 0
    if what in ENUMS or what in ("i32", "i64"):
        bits = 64 if what == "i64" else 32
        n &= (1 << bits) - 1
        n -= (n >> bits - 1) << bits
    if what in ENUMS:
        prefix, *names = ENUMS[what].split()
        return prefix + names[n] if 0 <= n < len(names) else n
    return str(n) if what.endswith("64") else n


def number_from_json(what, value):
    if what in ENUMS and isinstance(value, str):
        prefix, *names = ENUMS[what].split()
        return names.index(value[len(prefix):])
    return int(value)


def to_json(kind, data):
    """Decodes a packet of a known kind into the form of the vectors."""
    raw, out = decode(data), {}
    if kind.endswith("_provider"):
        known = [number for number in raw if number <= len(MESSAGES[kind].split())]
        raw = {known[-1]: raw[known[-1]]} if known else {}  # of several bodies, the last one counts
    for number, name, what, repeated in fields_of(kind):
        values = raw.get(number, [])
        if is_number(what):
            plain = []
            for value in values:
                at = 0
                if isinstance(value, int):
                    plain.append(value)
                while not isinstance(value, int) and at < len(value):  # packed
                    n, at = read_varint(value, at)
                    plain.append(n)
            values = [number_to_json(what, n) for n in plain]
        elif what == "text":
            values = [value.decode() for value in values]
        elif what == "bytes":
            values = [base64.b64encode(value).decode() for value in values]
        elif what == "map":
            entries = [decode(value) for value in values]
            pairs = {e.get(1, [b""])[-1].decode(): e.get(2, [b""])[-1].decode() for e in entries}
            values = [pairs] if pairs else []
        else:
            values = [to_json(what, value) for value in values]
        if repeated and values:
            out[name] = values
        elif values and (what in MESSAGES or values[-1] not in (0, "0", "", False) and
                         not str(values[-1]).endswith("_UNSPECIFIED")):
            out[name] = values[-1]
    return out


def to_packet(kind, value):
    """Encodes the form of the vectors."""
    out = b""
    for number, name, what, repeated in fields_of(kind):
        if name not in value:
            continue
        values = value[name] if repeated else [value[name]]
        if is_number(what):
            numbers = [number_from_json(what, v) for v in values]
            out += field(number, b"".join(map(varint, numbers)) if repeated else numbers[0])
        elif what == "map":
            for key in sorted(value[name]):
                out += message(number, message(1, key) + message(2, value[name][key]))
        elif what in ("text", "bytes"):
            for v in values:
                out += message(number, base64.b64decode(v) if what == "bytes" else v)
        else:
            out += message(number, to_packet(what, values[0]))
    return out


def check(vector):
    """Returns what is wrong with the example's view of one vector, or None."""
    packet, kind = bytes.fromhex(vector["hex"]), vector["direction"]
    if vector["message"] is None:
        return None  # what is invalid is for the receiver's own limits to say
    got = to_json(kind, packet)
    if got != vector["message"]:
        return f"decoded {got}"
    if vector["canonical"] and to_packet(kind, got) != packet:
        return f"encoded {to_packet(kind, got).hex()}"
    return None


def garbage(vector):
    """Reports whether plain decoding refuses the packet."""
    try:
        to_json(vector["direction"], bytes.fromhex(vector["hex"]))
    except ValueError:
        return True
    return False


def main():
    vectors = [json.loads(path.read_text()) for path in sorted(pathlib.Path(sys.argv[1]).glob("*.json"))]
    wrong = [(v["name"], problem) for v in vectors if (problem := check(v))]
    for name in ("to-truncated", "to-garbage", "event-invalid-utf8", "from-cut-varint", "from-long-varint",
                 "from-field-0"):
        if not any(v["name"] == name and garbage(v) for v in vectors):
            wrong.append((name, "not refused"))
    for name, problem in wrong:
        print(f"{name}: {problem}")
    valid, canonical = sum(v["valid"] for v in vectors), sum(v["canonical"] for v in vectors)
    print(f"{len(vectors)} vectors, {valid} decoded, {canonical} encoded again")
    return 1 if wrong or not canonical else 0


if __name__ == "__main__":
    sys.exit(main())
