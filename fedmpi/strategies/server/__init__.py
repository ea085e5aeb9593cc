"""One model for all: what the server makes of the mean."""
