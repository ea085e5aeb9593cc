"""A finished run, used: scored, and asked for predictions."""
