"""Recipes: what is trained, from data to bundle. Each folder has a README, full.yaml and debug.yaml."""
