"""The HTTP edge: what providers post, and health for those who speak no gRPC."""
