"""An audit's tables and figures."""
