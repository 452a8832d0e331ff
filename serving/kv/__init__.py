"""What the KV caches of a deployment hold, lose and could hold: the view, and their tiers.

Pure: `events` (vLLM's wire format into values), `sequence`, `cache`, `reuse`, `view`, `policy`,
`tiers`. Only `subscriber` touches a socket.
"""
