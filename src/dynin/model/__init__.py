"""Ids enter, logits leave: the backbone, its sizes, and the published names of its tensors."""
