"""What the console keeps of releases."""
