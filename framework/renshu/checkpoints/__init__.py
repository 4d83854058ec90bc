"""Checkpoints: a codec for state, a format on disk, saving in the background, restoring."""

from renshu.checkpoints.format import (
    Manifest,
    listing,
    newest,
    read,
    read_manifest,
    read_weights,
    snapshot,
    verify,
    write,
)
from renshu.checkpoints.saver import Saver

__all__ = [
    "Manifest",
    "Saver",
    "listing",
    "newest",
    "read",
    "read_manifest",
    "read_weights",
    "snapshot",
    "verify",
    "write",
]
