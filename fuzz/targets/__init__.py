"""What is fuzzed: targets by name."""

from fuzz.targets import command_line, geometry, runs, store, theory

TARGETS = geometry.TARGETS | runs.TARGETS | theory.TARGETS | store.TARGETS | command_line.TARGETS
