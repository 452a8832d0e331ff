"""What one replica and one pool of replicas sustain, in closed form."""
