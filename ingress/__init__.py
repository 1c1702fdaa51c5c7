"""The ingress: HTTP becomes events, and events become HTTP. It decides on no money and calls no provider.

    server ─▶ app ─▶ guard (form, size, limits) ─▶ auth ─▶ chat ─▶ log: RequestAccepted
                                                    │       client ◀─ replies
                                                    └▶ admin · story · models · probes

`app.create_ingress(door)` is the ASGI application, `server.server_config` runs it under uvicorn.
"""
