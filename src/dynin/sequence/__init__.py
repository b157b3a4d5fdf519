"""Codes and text enter; one row of ids with its target positions leaves; and the way back."""
