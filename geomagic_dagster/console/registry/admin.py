"""The admin's pages of releases."""
