"""One model for all: strategies with a step of their own at the server."""
