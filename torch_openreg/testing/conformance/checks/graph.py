"""Graphs (L5): capture and replay."""
