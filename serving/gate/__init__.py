"""The front that clients talk to: keys, admission, records; answers pass through unchanged.

`app` is the ASGI application, `upstream` passes bytes through. `admission` decides, purely, from
`estimates` (the planner's profile) and what `load` knows of the deployment. The router may be
talked to directly just as well.
"""
