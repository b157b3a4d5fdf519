"""Logits to ids, in parallel: a canvas with hidden places and a denoiser enter; complete canvases leave. No model."""
