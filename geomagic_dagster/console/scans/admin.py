"""Scans: admin."""
