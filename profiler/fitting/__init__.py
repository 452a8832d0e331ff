"""From scattered measurements to time tables: forms, their choice, their error."""
