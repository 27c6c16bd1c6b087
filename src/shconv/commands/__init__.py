"""The sub-commands: each a frozen dataclass of options with a run method."""
