"""Domains of the sound tier: each encloses values or gains in its own way, and their intersection is kept."""
