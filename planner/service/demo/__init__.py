"""The main job on this machine, end to end: `poolwise demo`.

`run.py` reads top to bottom in the order of the stages; `site.py` finds the engine and makes the
model, `traffic.py` fits a trace to the machine, `describe.py` writes the spec, `outcome.py` holds
what happened, `display.py` shows it while it happens.
"""
