"""The echo service: what measurements and fault tests call."""
