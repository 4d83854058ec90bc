"""Checkpoints: a codec for state, a format on disk, saving in the background, restoring."""

from renshu.checkpoints.format import listing, newest, read, read_weights, snapshot, verify, write
from renshu.checkpoints.manifest import Manifest, read_manifest
from renshu.checkpoints.saver import Saver

__all__ = ["Saver", "listing", "newest", "read", "read_weights", "snapshot", "verify", "write"]
__all__ += ["Manifest", "read_manifest"]
