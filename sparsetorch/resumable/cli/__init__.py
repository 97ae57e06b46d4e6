"""Command lines of trainings that are gone on with."""
