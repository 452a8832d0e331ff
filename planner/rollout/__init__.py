"""From a fleet to a plan: ordered steps, guards, approval states. Pure."""
