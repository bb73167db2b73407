"""Between the contract's messages and the nouns of the model: one module a service, every bad field listed at once."""
