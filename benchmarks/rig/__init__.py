"""What the benchmarks stand on: a venue, the application around it, a bare loop. Not benchmarks themselves."""
