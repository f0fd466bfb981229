"""A test service that hands calls on as told."""
