# Only names for what dev.py does: python3 dev.py help
PYTHON ?= python3
ARGS ?=

dev = @command -v $(PYTHON) >/dev/null 2>&1 || { echo "python3 is missing: install Python 3.11 to 3.14" >&2; exit 2; }; \
	exec $(PYTHON) dev.py

.PHONY: help setup demo drill soak run live test test-exhaustive bench lint check lock
help:
	$(dev) help
setup:
	$(dev) setup
demo:  # make demo DURATION=60 PORT=9090
	$(dev) demo $(if $(DURATION),--duration $(DURATION)) $(if $(PORT),--port $(PORT)) $(ARGS)
drill:  # make drill ONLY=K1,R3
	$(dev) drill $(if $(ONLY),--only $(ONLY)) $(ARGS)
soak:  # make soak MINUTES=10
	$(dev) soak $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)
run:
	$(dev) run $(ARGS)
live:  # make live EXCHANGE=binance
	$(dev) live $(if $(EXCHANGE),--exchange $(EXCHANGE)) $(ARGS)
test:  # make test ARGS="-k words"
	$(dev) test $(ARGS)
test-exhaustive:  # a kill at every step, long loads
	$(dev) test-exhaustive $(ARGS)
bench:  # make bench ONLY=ingest
	$(dev) bench $(ONLY) $(ARGS)
lint:
	$(dev) lint
check:  # lint, known holes of the packages, the tests
	$(dev) check $(ARGS)
lock:
	$(dev) lock
