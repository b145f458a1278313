"""Safetensors files as named spans of bytes: strict headers, layouts, bodies, values."""
