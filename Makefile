# Every target is one call of run.py, which also works where there is no make.
PYTHON ?= python3

.PHONY: help setup book test lab train fuzz faults mutants bench lint mirror clean
help setup book test lab train fuzz faults mutants bench lint mirror clean:
	@"$(PYTHON)" run.py $@
