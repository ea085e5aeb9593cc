"""One model for all: alternating directions."""
