"""Operating-system services, one folder each, and the interfaces they serve."""
