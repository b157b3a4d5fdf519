"""A model and held-out examples enter; scores with their uncertainty leave."""
