"""The protocols of `ssl-backbones evaluate`: a module each, with its typed `Options` and `run(options)`.

Those that train have `PRESETS` as well, of which the first is taken unless another is named. A module's docstring is
what its `--help` says.
"""
