"""Unlimited, exactly known training data from real emoji artwork and programmed voices.

Enters: a seed, a split, a task and an index. Leaves: examples of every task with what a judge needs to know.
"""
