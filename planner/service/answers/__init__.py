"""One question answered: forecast, plan, simulation, profile, as CLI and REST ask for them."""
