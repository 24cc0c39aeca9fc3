"""The commands: thin, one module per group; what people see is made in ``render`` and put out by ``screen``."""
