"""The mathematics of masked diffusion: clean ids and a time enter, corrupted ids and losses leave. No modality."""
