"""The OpenAI-compatible face: `base_url` is all that existing code has to change. Each route maps
to the same service functions as the native API's; what can't be mapped is refused by name."""
