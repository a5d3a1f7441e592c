"""The one error of this package."""

from __future__ import annotations


class LocalPodError(Exception):
    """Something that this machine lacks or refused. The message is one line for people, with the remedy."""
