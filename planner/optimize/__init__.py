"""The OR-Tools model that picks the cheapest fleet, and the loop that proves it in the twin."""
