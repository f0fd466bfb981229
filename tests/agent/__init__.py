"""A service that does what tests tell it."""
