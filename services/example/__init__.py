"""The digest service of the tutorial."""
