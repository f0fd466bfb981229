"""The memory manager."""
