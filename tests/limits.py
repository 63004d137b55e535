"""The time that a test waits for a process that may hang. No test measures a clock: a machine may be slow."""

HANG = 1800
"""Seconds after which a program that answers nothing is taken to hang."""
