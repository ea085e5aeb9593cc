"""Shard sets on disk: a manifest and HDF5 files, written and read."""
