#!/usr/bin/env python3
"""Prints the dead letters of a topic of the local log, oldest first, one JSON object a line.

    dead_letters.py DATA_DIR TOPIC > letters.jsonl

Each has the headers that Sluice added (`sluice.reason`, `sluice.detail`, ..) and, as `record`, the message in the form
that `sluice load` takes. A message that cannot be read, as one that was cut, has its value in base64 instead. Only
reads, also beside running processes.
"""

import base64
import json
import sqlite3
import struct
import sys
from pathlib import Path

LETTERS = """
    SELECT key, value, headers FROM message
    JOIN partition ON slot = place >> 40 JOIN topic ON topic.id = partition.topic
    WHERE topic.name = ? ORDER BY place
"""


def headers(blob):
    """Name and value of each header, with their lengths before them."""
    parts = []
    while blob:
        (length,) = struct.unpack_from("<I", blob)
        parts.append(blob[4 : 4 + length].decode(errors="replace"))
        blob = blob[4 + length :]
    return zip(parts[::2], parts[1::2])


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def protobuf(data):
    """A sluice.v1.EmbeddingRecord as Sluice writes it: its version, packed 32-bit floats, metadata."""
    record, at = {}, 0
    while at < len(data):
        tag, at = varint(data, at)
        value, at = varint(data, at)
        if tag == 0x08:
            continue
        part, at = data[at : at + value], at + value
        if len(part) != value:
            raise ValueError("the value was cut")
        if tag == 0x1A:
            record["vector"] = [component for (component,) in struct.iter_unpack("<f", part)]
        elif tag == 0x32:
            record["metadata"] = json.loads(part)
        else:
            raise ValueError("not written by Sluice")
    return record


def message(key, value):
    try:
        if value is None:
            return {"record": {"id": key.decode(), "deleted": True}}
        fields = json.loads(value) if value.lstrip().startswith(b"{") else protobuf(value)
        return {"record": {"id": key.decode()} | fields}
    except (AttributeError, IndexError, ValueError, struct.error):
        encoded = {"key": key, "value": value}
        return {f"{name}_base64": base64.b64encode(part or b"").decode() for name, part in encoded.items()}


def main():
    data_dir, topic = sys.argv[1:3]
    file = (Path(data_dir) / "log" / "log.sqlite3").resolve(strict=True)
    log = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)
    for key, value, blob in log.execute(LETTERS, [f"{topic}.dead-letter"]):
        added = {name: header for name, header in headers(blob or b"") if name.startswith("sluice.")}
        print(json.dumps(added | message(key, value)))


if __name__ == "__main__":
    main()
