"""Codecs of the package `transformers` behind the protocols: sounds and pictures enter, codes leave; and back."""
