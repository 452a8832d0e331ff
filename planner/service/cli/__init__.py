"""The `poolwise` command."""
