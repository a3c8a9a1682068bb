"""A model directory in, a smaller model directory out, stage by stage."""
