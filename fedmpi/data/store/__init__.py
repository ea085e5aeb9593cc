"""Shard sets on disk: a manifest, and HDF5 files of many clients each."""
