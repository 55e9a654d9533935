"""Scans: models."""
