"""Belief + policy + money left -> the next attempt: which rung, in which mode, or none."""
