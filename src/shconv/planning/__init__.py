"""How long a run will take and what it will need, told before it starts."""
