"""Runs drawn and compared: what a person reads of them."""
