"""Every measurement, the peers included: what a call costs here, and beside what."""
