"""Small tools under the names that Lightning's users know."""

from renshu.combined import CombinedLoader

__all__ = ["CombinedLoader"]
