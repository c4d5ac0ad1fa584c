"""A local cloud: small servers that speak Azure's own protocols and really do the work.

One process, one module per service. What is not implemented answers 501 with method and path.
"""
