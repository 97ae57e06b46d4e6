"""What matchers are trained on."""
