"""The spec as people write it: read, checked, told what is wrong with it, kept in versions."""
