"""The page: one HTML file of a run."""
