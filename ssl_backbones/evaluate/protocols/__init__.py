"""The protocols of evaluate.py: a module each, with its typed `Options` and `run(options)`, which returns the results.

Those that train have `PRESETS` as well, of which the first is taken unless another is named. A module's docstring is
what its `--help` says.
"""
