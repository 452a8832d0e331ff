"""What moves a fleet: plans on their way, rollouts, targets, and the gate."""
