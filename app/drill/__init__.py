"""The fault list, struck for real against an installation of its own: each promise is seen to be kept, or broken."""
