"""Decisions as pure functions of values: no clock, no file, no network in here."""
