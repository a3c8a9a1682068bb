"""Jobs and their truth, and the faces: REST and the command line."""
