"""The HTTP service: worker processes that segment (``workers``, ``jobs``), and the application in front (``app``)."""
