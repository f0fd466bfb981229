"""The process manager."""
