"""The gRPC server: translates, calls the engine, translates back."""
