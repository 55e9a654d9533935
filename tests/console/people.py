"""What the tests of the console know of its users."""

PASSWORD = "a long password 1"
