"""See the module list of this folder."""
