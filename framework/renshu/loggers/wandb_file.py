"""Reading a run's `.wandb` file: the values that W&B has written, also while it is writing."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

_BLOCK, _HEADER = 32768, struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


class WandbFile:
    """Records in the layout of LevelDB's log: blocks of 32 KiB, chunks of CRC32, length, kind.

    W&B's package has no reader in Python. A torn end is not read now, but the next time.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._at = path, 7  # behind the file's own header

    def rows(self) -> Iterator[dict[str, Any]]:
        """Tag → value of every `log` call, in order; those since the last time this was called.

        A picture or table is a dict of what W&B notes of it.
        """
        for record in self.records():
            if record.WhichOneof("record_type") == "history":
                row: dict[str, Any] = {}
                for item in record.history.item:
                    tag, *part = item.nested_key or [item.key]
                    value = json.loads(item.value_json)
                    row[tag] = {**row.get(tag, {}), ".".join(part): value} if part else value
                yield {tag: value for tag, value in row.items() if not tag.startswith("_")}

    def records(self) -> Iterator[Any]:
        """W&B's own records (`wandb_internal.Record`) since the last call."""
        from wandb.proto import wandb_internal_pb2

        read = vars(wandb_internal_pb2)["Record"].FromString
        with self.path.open("rb") as file:
            file.seek(self._at)
            data, at, record = file.read(), 0, b""
        base = self._at
        while True:
            left = _BLOCK - (base + at) % _BLOCK
            at += left if left < _HEADER.size else 0
            if at + _HEADER.size > len(data):
                return
            expected, length, kind = _HEADER.unpack_from(data, at)
            chunk = data[at + _HEADER.size : at + _HEADER.size + length]
            if len(chunk) < length or crc32(data[at + 6 : at + 7] + chunk) != expected:
                return
            at += _HEADER.size + length
            record = chunk if kind in (_FULL, _FIRST) else record + chunk
            if kind in (_FULL, _LAST):
                self._at = base + at
                yield read(record)

    def sync(self) -> None:
        """Wait until what W&B has written is on the disk."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
