"""Frames and prompt tokens to masks, with a memory between frames: one protocol, published networks behind it."""
