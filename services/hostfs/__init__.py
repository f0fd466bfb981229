"""Host directories, read-only."""
