"""The command: one thin file per subcommand."""

__version__ = "0.1.0"
