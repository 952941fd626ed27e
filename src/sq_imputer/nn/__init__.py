"""Blocks used by two models or more. They know torch only."""
