"""Checkpoints: a codec for state, a format on disk, saving in the background, restoring."""

from renshu.checkpoints.format import (
    Manifest,
    Snapshot,
    listing,
    newest,
    read,
    read_manifest,
    read_weights,
    snapshot,
    verify,
    write,
)
from renshu.checkpoints.restore import (
    capture_optimizer,
    capture_scheduler,
    restore_optimizer,
    restore_scheduler,
)
from renshu.checkpoints.saver import Saver

__all__ = [
    "Manifest",
    "Saver",
    "Snapshot",
    "capture_optimizer",
    "capture_scheduler",
    "listing",
    "newest",
    "read",
    "read_manifest",
    "read_weights",
    "restore_optimizer",
    "restore_scheduler",
    "snapshot",
    "verify",
    "write",
]
