"""The lab: what a model knows, what it writes, and what this machine can do."""
