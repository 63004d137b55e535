"""How long a test waits for what may hang. No test measures a clock: a machine may be as slow as it likes."""

HANG = 1800
"""Seconds after which a program that answers nothing is taken to hang."""
