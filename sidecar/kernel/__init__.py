"""Adapters that read /proc and cgroupfs."""
