"""The cohort of a round, and the ranks that serve it."""
