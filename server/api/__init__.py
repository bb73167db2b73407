"""The gRPC edge: one servicer a service, one interceptor, one table of errors. Knows the contract's messages."""
