"""HTTP: application, middleware, uploads, the page, and the server."""
