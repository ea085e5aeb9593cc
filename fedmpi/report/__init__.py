"""Runs drawn and compared, as a page for a person."""
