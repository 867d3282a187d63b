"""Fronts: each carries calls between one transport and `calls`, and knows nothing of what they mean."""
