"""Who takes part in a round, and which rank serves whom."""
