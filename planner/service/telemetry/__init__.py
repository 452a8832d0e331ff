"""What Poolwise tells of itself: metrics, logs, traces, notifications."""
