"""The view: figures and widgets, for the chapters alone."""
