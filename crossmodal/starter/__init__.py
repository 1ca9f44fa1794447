"""The starter bundle: weights, configs, checksums and model card, as data files."""
