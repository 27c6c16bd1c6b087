"""The tables and the figure of an inspection of filter maps, from what inspection.json holds."""
