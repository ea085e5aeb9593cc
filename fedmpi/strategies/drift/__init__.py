"""One model for all: strategies against the drift of clients."""
