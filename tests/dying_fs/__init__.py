"""A file system that can be told to die at a chosen step."""
