"""The cohort of a round, and its serving ranks."""
