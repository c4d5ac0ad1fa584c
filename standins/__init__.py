"""A local cloud: one process that speaks the protocols of Azure's services and really does the work.

One package per service. A route that is not implemented returns 501 with method and path.
"""
