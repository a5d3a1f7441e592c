"""Puts the sidecar into pod specs, and takes it out again: a pure plan, and what carries it out on YAML text."""
