"""One model for all: what keeps clients from drifting apart."""
