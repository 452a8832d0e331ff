"""Published instances with published answers, solved by the optimizer."""
