"""Where compiled graphs run: sessions, execution providers, data."""
