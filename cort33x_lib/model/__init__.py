"""The model: a pattern string of mixers, from attention to the whole transformer."""
