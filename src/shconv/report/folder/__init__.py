"""What is read: a run folder as one object, its rows, outcomes and audits."""
