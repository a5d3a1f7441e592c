"""Serves the injection as a mutating admission webhook: a pure answer to each review, and an HTTPS server around it."""
