"""What is computed from the rows: intervals, comparisons of a pair, the worst case per image."""
