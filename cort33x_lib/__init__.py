"""The library that the chapters of Cort33x build, one room at a time."""
