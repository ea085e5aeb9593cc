"""One model for all, fair to every client."""
