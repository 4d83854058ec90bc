"""Tuner, where Lightning's users look for it."""

from renshu.tuning import Tuner

__all__ = ["Tuner"]
