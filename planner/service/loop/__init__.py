"""The control loop: slow and fast ticks, their stages, what people ordered, and what is kept."""
