"""What the running deployment is measured by: one module for each part."""
