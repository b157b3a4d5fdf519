"""Layers that several networks share: tensors enter, tensors of the same shape leave. No vocabulary, no tasks."""
