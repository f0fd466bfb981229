"""A test service that hands out turns."""
