"""Weights of several models become those of one: enters model folders and a recipe, leaves a model folder."""
