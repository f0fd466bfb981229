"""Drivers as services, the driver container, and device models: to come."""
