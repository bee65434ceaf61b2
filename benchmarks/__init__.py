"""Measurements: accuracy, and later what size and speed cost. Not part of what ships."""
