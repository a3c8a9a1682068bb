"""A dataset in, a student out; then smaller ones, each measured."""
