"""The REST routes, one module per noun. A route parses, calls one service function, returns."""
